"""The measure stage: what it writes, that its peak is exact, and that what does not fit is a row with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from deconattn.analysis import measure as stage
from deconattn.analysis.costs_schema import COSTS, DIFFERENCES
from deconattn.analysis.mixer_memory import peak_bytes
from deconattn.cli import main
from deconattn.experiment.measured import measure_spec, measured_models, measured_path
from deconattn.experiment.settings import load_settings
from tests.configs import problems, with_change, write
from tests.conftest import ROOT

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
SPEC: dict[str, Any] = {
    "model": {"name": "tiny", "max_position_embeddings": 32, **SHAPE},
    "variants": ["standard", "mlp", "approximate", "nonapproximate", "rndembqk", "softplus"],
    "batch_sizes": [1, 2],
    "lengths": [33, 300],
    "repeats": 1,
}
MEASURED = (
    "held_activation_bytes",
    "peak_bytes",
    "held_state_bytes",
    "held_state_bytes_bf16",
    "training_ms",
    "decode_ms",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run of the stage, in which times are taken once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SHORTEST", 0.0)
        out = tmp_path_factory.mktemp("measured") / "tiny-0.5"
        return stage.measure_file(SPEC, out, "cpu", threads=1, memory_mb=4000)


@pytest.fixture(scope="module")
def table(written: tuple[Path, Path]) -> pd.DataFrame:
    return pd.read_parquet(written[0])


def test_a_row_for_each_variant_batch_and_length(written: tuple[Path, Path], table: pd.DataFrame) -> None:
    assert [path.name for path in written] == ["tiny-0.5.parquet", "tiny-0.5-differences.parquet"]
    assert pq.read_schema(written[0]).equals(COSTS) and pq.read_schema(written[1]).equals(DIFFERENCES)
    keys = [(v, b, n) for v in SPEC["variants"] for b in (1, 2) for n in (33, 300)]
    assert list(zip(table["variant"], table["batch"], table["length"], strict=True)) == keys
    assert set(table["model"]) == {"tiny"} and set(table["threads"]) == {1}
    assert table["device"].str.startswith("CPU").all() and set(table["torch"]) == {torch.__version__}
    assert table["reason"].isna().all() and table[list(MEASURED)].notna().all(axis=None)
    assert (table[["training_repeats", "decode_repeats"]] >= 1).all(axis=None)


def test_what_is_counted_and_held_is_what_the_formulas_say(table: pd.DataFrame) -> None:
    for formula, found in (
        ("prefill_flops", "counted_prefill_flops"),
        ("decode_flops", "counted_decode_flops"),
        ("activation_bytes", "held_activation_bytes"),
        ("state_bytes", "held_state_bytes"),
        ("state_bytes_bf16", "held_state_bytes_bf16"),
    ):
        assert (table[formula] == table[found]).all(), found
    # Everything held for backward is held at once, with the output and its gradient's way back on top.
    assert (table["peak_bytes"] > table["held_activation_bytes"]).all()
    assert (table["training_ms"] > 0).all() and (table["decode_ms"] > 0).all()


def test_printed_values_and_differences_stand_beside(written: tuple[Path, Path], table: pd.DataFrame) -> None:
    in_paper = table["variant"] != "softplus"
    assert (table["printed_prefill_flops"].notna() == in_paper).all() and (
        table["printed_cache_bytes"].notna() == in_paper
    ).all()
    terms = pd.read_parquet(written[1])
    assert "softplus" not in set(terms["variant"])
    sums = terms[terms["quantity"] == "state_bytes"].groupby(["variant", "batch", "length"])["amount"].sum()
    rows = table[table["variant"] != "softplus"].set_index(["variant", "batch", "length"])
    gap = rows["state_bytes_bf16"] - rows["printed_cache_bytes"]
    assert (gap == sums.reindex(gap.index, fill_value=0)).all()


def test_the_peak_is_exact_and_sees_what_is_freed_in_between() -> None:
    device = torch.device("cpu")
    kept = []

    def work() -> None:
        kept.append(torch.empty(1000, dtype=torch.uint8))
        passing = torch.empty(5000, dtype=torch.uint8)
        del passing
        kept.append(torch.empty(2000, dtype=torch.uint8))

    assert peak_bytes(work, device) == 6000
    x = torch.ones(100, 50)
    # Inside one operation: logsumexp makes and drops what no caller ever sees.
    assert peak_bytes(lambda: x.logsumexp(1), device) > 100 * 4


def test_the_peak_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: torch.empty(8), torch.device("cpu"))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError):
        peak_bytes(lambda: torch.empty(2) @ torch.empty(3), torch.device("cpu"))
    print("heard", flush=True)
    assert capfd.readouterr().out == "heard\n"


def test_what_does_not_fit_is_a_row_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPEC | {"variants": ["softplus", "mlp"], "batch_sizes": [1], "lengths": [32, 4096]}
    path, _ = stage.measure_file(spec, tmp_path / "x", "cpu", 1, memory_mb=60)
    rows = pd.read_parquet(path).set_index(["variant", "length"])
    assert rows["reason"].notna().to_dict() == {
        ("softplus", 32): False, ("softplus", 4096): True, ("mlp", 32): False, ("mlp", 4096): False,
    }  # fmt: skip
    left_out = rows.loc[("softplus", 4096)]
    assert left_out["reason"] == "needs about 0.6 GB; 0.1 GB are given (memory_mb)"
    assert left_out[list(MEASURED)].isna().all()
    assert left_out["counted_prefill_flops"] == left_out["prefill_flops"] > 0
    assert "softplus B = 1 L = 4096: not measured, needs about 0.6 GB" in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    spec = json.dumps(SPEC | {"variants": ["mlp"], "batch_sizes": [1], "lengths": [8]})
    assert main(["measure", spec, str(tmp_path / "a"), "--device", "cpu", "--threads", "1"]) == 0
    assert (tmp_path / "a.parquet").is_file() and (tmp_path / "a-differences.parquet").is_file()
    if not torch.cuda.is_available():
        assert main(["measure", spec, str(tmp_path / "b"), "--device", "cuda"]) == 2
        assert "there is no GPU here" in capsys.readouterr().err


def test_what_is_measured_of_the_committed_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paper = load_settings(["config/paper.yaml"])
    assert measured_models(paper) == ["500m"] and measured_models(load_settings(["config/test.yaml"])) == []
    spec = measure_spec(paper, "500m")
    assert spec["lengths"] == [2**n for n in range(7, 14)] and spec["batch_sizes"] == [1, 8]
    assert len(spec["variants"]) == 7 and "softplus" not in spec["variants"]
    assert spec["model"]["hidden_size"] == 896 and spec["model"]["num_key_value_heads"] == 14
    demo = load_settings(["config/demo.yaml"])
    assert measured_models(demo) == ["nano"]
    assert measured_path(demo, "nano").parent == Path("results/costs")
    wider = load_settings(["config/demo.yaml"], {"models": {"nano": {"hidden_size": 128}}})
    assert measured_path(wider, "nano") != measured_path(demo, "nano")
    # What is no part of a shape or of what is measured changes no place.
    slower = load_settings(
        ["config/demo.yaml"], {"training": {"steps": 9000}, "resources": {"default": {"threads": 2}}}
    )
    assert measured_path(slower, "nano") == measured_path(demo, "nano")


WRONG = {
    "an unknown variant": (
        "costs: {variants: [standart]}",
        "costs.variants.0: 'standart' is not a variant; did you mean",
    ),
    "a length twice": ("costs: {lengths: [128, 64, 128]}", "costs.lengths.2: 128 is named twice"),
    "a length of one": ("costs: {lengths: [1]}", "costs.lengths.0: 1 is not allowed"),
    "no batch": ("costs: {batch_sizes: []}", "costs.batch_sizes"),
    "a word that is none": ("costs: {length: [8]}", "costs.length: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    section, expected = WRONG[name]
    (line,) = problems(write(tmp_path, with_change("exhibits:", f"{section}\nexhibits:")))
    assert expected in line


def test_costs_may_be_shown_of_a_model_that_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    big = "  big: {hidden_size: 64, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2}\n"
    text = with_change("exhibits:", "exhibits:\n  table6: {model: big}").replace("training:\n", f"{big}training:\n", 1)
    assert measured_models(load_settings([write(tmp_path, text)])) == ["big"]
    (line,) = problems(write(tmp_path, text.replace("{model: big}", "{model: bug}")))
    assert "exhibits.table6.model: 'bug' is not a model; did you mean 'big'?" in line
