"""The measure stage: what it writes, that its peak is exact, and that what does not fit is a row with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from deconattn.analysis import measure as stage
from deconattn.analysis.mixer_memory import peak_bytes
from deconattn.analysis.schema import COSTS, DIFFERENCES
from deconattn.cli import main
from deconattn.experiment.code import code_of
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.record import spec_hash, write_spec
from tests.configs import problems, with_change, write
from tests.project import ROOT

SPEC: dict[str, Any] = {
    "model": {
        "name": "tiny", "max_position_embeddings": 32, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    },
    "variants": ["standard", "approximate", "nonapproximate", "rndembqk", "softplus"],
    "batch_sizes": [1, 2],
    "lengths": [33, 170],
    "repeats": 1,
}  # fmt: skip
BYTES = ["held_activation_bytes", "peak_bytes", "held_state_bytes", "held_state_bytes_bf16"]
TIMES = ["training_ms", "decode_ms", "training_repeats", "decode_repeats"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def times_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHORTEST", 0.0)


def test_a_row_for_each_variant_batch_and_length(tmp_path: Path) -> None:
    paths = stage.measure_file(SPEC, tmp_path / "tiny-0.5", "cpu", threads=1, memory_mb=4000)
    assert [path.name for path in paths] == ["tiny-0.5.parquet", "tiny-0.5-differences.parquet"]
    assert pq.read_schema(paths[0]).equals(COSTS) and pq.read_schema(paths[1]).equals(DIFFERENCES)
    table, terms = map(pd.read_parquet, paths)
    keys = [(v, b, n) for v in SPEC["variants"] for b in (1, 2) for n in (33, 170)]
    assert list(zip(table["variant"], table["batch"], table["length"], strict=True)) == keys
    assert set(table["model"]) == {"tiny"} and set(table["threads"]) == {1}
    assert table["device"].str.startswith("CPU").all() and set(table["torch"]) == {torch.__version__}
    assert table["reason"].isna().all() and (table[TIMES] > 0).all(axis=None)
    for formula, found in (
        ("prefill_flops", "counted_prefill_flops"),
        ("decode_flops", "counted_decode_flops"),
        ("state_bytes", "held_state_bytes"),
        ("state_bytes_bf16", "held_state_bytes_bf16"),
    ):
        assert (table[formula] == table[found]).all(), found
    # Everything held for backward is held at once, with the output and its gradient's way back on top.
    assert (table["peak_bytes"] > table["held_activation_bytes"]).all()
    in_paper = table["variant"] != "softplus"
    assert (table[["printed_prefill_flops", "printed_cache_bytes"]].notna().all(axis=1) == in_paper).all()
    assert set(terms["variant"]) == set(table["variant"][in_paper])
    place = ["variant", "batch", "length"]
    sums = terms[terms["quantity"] == "state_bytes"].groupby(place)["amount"].sum()
    rows = table[in_paper].set_index(place)
    gap = rows["state_bytes_bf16"] - rows["printed_cache_bytes"]
    assert (gap == sums.reindex(gap.index, fill_value=0)).all()


def test_the_peak_is_exact_and_sees_what_is_freed_in_between(capfd: pytest.CaptureFixture[str]) -> None:
    kept = []

    def work() -> None:
        kept.append(torch.empty(1000, dtype=torch.uint8))
        passing = torch.empty(5000, dtype=torch.uint8)
        del passing
        kept.append(torch.empty(2000, dtype=torch.uint8))

    assert peak_bytes(work, CPU) == 6000
    x = torch.ones(100, 50)
    # Inside one operation: logsumexp makes and drops what no caller ever sees.
    assert peak_bytes(lambda: x.logsumexp(1), CPU) > 100 * 4
    assert capfd.readouterr() == ("", "")


def test_what_does_not_fit_is_a_row_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPEC | {"variants": ["softplus", "mlp"], "batch_sizes": [1], "lengths": [32, 4096]}
    path, _ = stage.measure_file(spec, tmp_path / "x", "cpu", 1, memory_mb=60)
    rows = pd.read_parquet(path).set_index(["variant", "length"])
    left_out = ("softplus", 4096)
    assert rows.index[rows["reason"].notna()].tolist() == [left_out]
    assert rows.loc[left_out, "reason"] == "needs about 0.4 GB; 0.1 GB are given (evaluation_memory_mb)"
    assert rows.loc[left_out, BYTES + TIMES].isna().all()
    assert rows.loc[left_out, "counted_prefill_flops"] == rows.loc[left_out, "prefill_flops"] > 0
    assert "softplus B = 1 L = 4096: not measured, needs about 0.4 GB" in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"stage": "measure", **SPEC, "variants": ["mlp"], "batch_sizes": [1], "lengths": [8]}
    spec["code"] = code_of(spec)
    folder = tmp_path / f"tiny-cpu-{spec_hash(spec)}"
    write_spec(folder, spec)
    if not torch.cuda.is_available():
        assert main(["measure", str(folder), "--device", "cuda"]) == 2
        assert "there is no GPU here" in capsys.readouterr().err
        assert "there is no GPU here" in (folder / "error.txt").read_text()
    assert main(["measure", str(folder), "--device", "cpu", "--threads", "1"]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "lock", "costs.parquet", "costs-differences.parquet", "record.json", "spec.json", "done",
    }  # fmt: skip


def test_what_is_measured_of_the_committed_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paper = Identity(load_settings(["config/paper.yaml"]))
    assert list(paper.costs) == ["500m"] and not Identity(load_settings(["config/test.yaml"])).costs
    spec = paper.costs["500m"].spec
    assert spec["lengths"] == [2**n for n in range(7, 14)] and spec["batch_sizes"] == [1, 8]
    assert len(spec["variants"]) == 7 and "softplus" not in spec["variants"]
    assert spec["model"]["hidden_size"] == 896 and spec["model"]["num_key_value_heads"] == 14

    def place(overrides: dict[str, Any] | None = None) -> Path:
        (one,) = Identity(load_settings(["config/demo.yaml"], overrides)).costs.values()
        return one.folder

    assert place().parent == Path("results/costs")
    assert place({"models": {"nano": {"hidden_size": 128}}}) != place()
    # What is no part of a shape or of what is measured changes no place.
    assert place({"training": {"steps": 9000}, "resources": {"default": {"threads": 2}}}) == place()


def test_costs_may_be_shown_of_a_model_that_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    big = "  big: {hidden_size: 64, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2}\n"
    text = with_change("exhibits:", "exhibits:\n  table6: {model: big}").replace("training:\n", f"{big}training:\n", 1)
    assert list(Identity(load_settings([write(tmp_path, text)])).costs) == ["big"]
    for old, new, told in (
        ("{model: big}", "{model: bug}", "exhibits.table6.model: 'bug' is not a model; did you mean 'big'?"),
        (
            "exhibits:",
            "costs: {variants: [standart]}\nexhibits:",
            "costs.variants.0: 'standart' is not a variant; did you",
        ),
        ("exhibits:", "costs: {lengths: [1]}\nexhibits:", "costs.lengths.0: 1 is not allowed"),
    ):
        (line,) = problems(write(tmp_path, text.replace(old, new)))
        assert told in line
