"""The analysis of a run, against loops and the naive decoder; what diverged or does not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deconattn.analysis import indicators, layers
from deconattn.analysis.histogram import edges
from deconattn.analysis.run import analyse_run, spread
from deconattn.analysis.schema import reason_of
from deconattn.data.table import heldout_rows
from deconattn.errors import UserError
from tests.analysis.test_indicators import loop_form
from tests.make_attention import save_tiny_model, write_heldout
from tests.reference import naive

VARIANTS = ("standard", "mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
FIXED = ("rndembqk", "fixedseqqk")
LENGTH = 12


def make_run(root: Path, variant: str, layout: str, status: str = "finished", scale: float = 4.0) -> Path:
    """A run folder with an untrained model."""
    name = f"tiny-{variant}-{layout}-s3-0123abcd"
    folder = root / "runs" / name
    fields = save_tiny_model(folder / "model", variant, layout, scale)
    spec = {"run": name, "model": {"name": "tiny", **fields}, "seed": 3, "tokens": {"id": "t"}}
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "record.json").write_text(json.dumps({"run": name, "status": status}))
    return folder


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    random = np.random.default_rng(5)
    documents = [random.integers(1, 61, n).tolist() + [0] for n in (17, 3, 40, 25, 9)]
    return write_heldout(tmp_path / "tokens", documents)


def analyse(folder: Path, heldout: Path, out: Path | None = None, sequences: int = 32) -> tuple[Path, Path]:
    return analyse_run(folder, heldout, out or folder, context_length=LENGTH, sequences=sequences, device="cpu")


def reference(folder: Path, rows: np.ndarray) -> naive.Trace:
    weights = load_file(folder / "model/model.safetensors")
    state = {name: t.double() if t.is_floating_point() else t for name, t in weights.items()}
    config = json.loads((folder / "model/config.json").read_text())
    return naive.forward(config, state, torch.from_numpy(rows))


def used_scores(scores: Tensor, kind: str) -> np.ndarray:
    """The scores that causal queries see, of (B, heads, L, L), or of (B, heads, L) where there is one a key."""
    if kind == "nonapproximate":
        return scores.flatten().numpy()
    i, j = np.tril_indices(scores.shape[-1])
    return scores[..., i, j].flatten().numpy()


@pytest.mark.parametrize(
    ("variant", "layout"), [*((v, "uniform") for v in VARIANTS), *((v, "even") for v in ("mlp", "fixedseqqk"))]
)
def test_analysis_of_a_run_agrees_with_the_naive_decoder(
    variant: str, layout: str, tmp_path: Path, heldout: Path
) -> None:
    folder = make_run(tmp_path, variant, layout)
    paths = analyse(folder, heldout, sequences=3)
    assert paths == (folder / "attention.parquet", folder / "scores.parquet")
    attention, scores = (pq.read_table(path).to_pandas() for path in paths)
    trace = reference(folder, spread(heldout_rows(heldout, LENGTH), 3))
    standard = {layer: variant == "standard" or (layout == "even" and layer % 2 == 0) for layer in (1, 2, 3, 4)}
    present = [layer for layer in standard if variant != "mlp" or standard[layer]]
    assert sorted(attention["layer"].unique()) == sorted(scores["layer"].unique()) == present
    for table in (attention, scores):
        assert all(standard[layer] == flag for layer, flag in zip(table["layer"], table["standard"], strict=True))
    for layer in present:
        one_map = variant in FIXED and not standard[layer]
        maps, raw = trace.maps[layer - 1], trace.scores[layer - 1]
        assert maps is not None and raw is not None
        own = attention[attention["layer"] == layer]
        assert set(own["sequences"]) == {1 if one_map else 3}
        assert len(own) == 4 * len(indicators.PER_HEAD) + 1
        loops = [loop_form(maps[sequence].tolist()) for sequence in range(3)]
        for name in loops[0]:
            mean = np.mean([loop[name] for loop in loops], axis=0)
            found = own[own["indicator"] == name].sort_values("head")
            assert found["value"].tolist() == pytest.approx(mean.tolist(), abs=2e-5), (layer, name)
            heads = [None] if name == "head_diversity" else [1, 2, 3, 4]
            assert [None if h != h else h for h in found["head"]] == heads
        exact = used_scores(raw[:1] if one_map else raw, "standard" if standard[layer] else variant)
        found = scores[scores["layer"] == layer].sort_values("bin_low")
        assert found["count"].sum() == found["total"].iloc[0] == len(exact)
        assert found["minimum"].iloc[0] == pytest.approx(exact.min(), rel=1e-4)
        assert found["maximum"].iloc[0] == pytest.approx(exact.max(), rel=1e-4)
        for at in (-1.0, 0.5, 3.0):
            edge = edges()[np.searchsorted(edges(), at)]
            below = found.loc[found["bin_high"] <= edge, "count"].sum()
            assert abs(below - (exact < edge).sum()) <= 2, "more than rounding moved scores between bins"
    assert set(attention["run"]) <= {folder.name} and set(attention["model"]) <= {"tiny"}
    assert set(attention["seed"]) <= {3} and set(attention["context_length"]) <= {LENGTH}
    if not present:  # no rows, and no reason needed
        assert [pq.read_table(path).num_rows for path in paths] == [0, 0]
        assert [reason_of(path) for path in paths] == [None, None]


@pytest.mark.parametrize("variant", ["standard", "rndembqk"])
def test_the_size_of_a_batch_changes_nothing(
    variant: str, tmp_path: Path, heldout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, variant, "uniform")
    tables = []
    for held in (1, 2 * 4 * LENGTH**2, 2**26):
        monkeypatch.setattr(layers, "HELD_AT_ONCE", held)
        paths = analyse(folder, heldout, tmp_path / str(held), sequences=5)
        tables.append([pq.read_table(path).to_pandas() for path in paths])
    for attention, scores in tables[1:]:
        assert attention["value"].to_numpy() == pytest.approx(tables[0][0]["value"].to_numpy(), abs=1e-6)
        assert scores["count"].sum() == tables[0][1]["count"].sum()


@pytest.mark.parametrize(
    ("weight", "poison", "reason"),
    [
        (None, math.nan, "training diverged"),
        ("model.layers.2.self_attn.k_proj.weight", math.nan, "weight model.layers.2.self_attn.k_proj.weight is not"),
        ("model.layers.2.self_attn.k_proj.weight", 3e38, "the attention map of layer 3 is not finite"),
        ("model.layers.3.mlp.down_proj.weight", math.inf, "weight"),  # after the last map
        ("lm_head.weight", math.nan, "weight lm_head.weight is not finite"),
    ],
    ids=["diverged", "nan", "huge", "inf", "head"],
)
def test_what_diverged_or_is_not_finite_leaves_no_rows_but_the_reason(
    weight: str | None, poison: float, reason: str, tmp_path: Path, heldout: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_run(tmp_path, "standard", "uniform", status="finished" if weight else "diverged")
    if weight:
        path = folder / "model" / "model.safetensors"
        tensors = load_file(path)
        tensors[weight][0] = poison
        save_file(tensors, path)
    paths = analyse(folder, heldout)
    assert [pq.read_table(p).num_rows for p in paths] == [0, 0]
    assert all(str(reason_of(path)).startswith(reason) for path in paths)
    assert f"{folder.name}: {reason}" in capsys.readouterr().err


def test_rows_are_spread_over_all_of_the_heldout_text(tmp_path: Path) -> None:
    documents = [list(range(1, n)) + [0] for n in (30, 2, 55, 8, 21, 300)]
    path = write_heldout(tmp_path / "tokens", documents)
    packed = np.array([token for document in documents for token in document])
    every = spread(heldout_rows(path, 16), 10_000)
    assert np.array_equal(every, packed[: len(packed) // 16 * 16].reshape(-1, 16))
    few = spread(every, 4)
    assert np.array_equal(few, every[[0, len(every) // 4, len(every) // 2, 3 * len(every) // 4]])


def test_what_does_not_fit_is_one_clear_line(tmp_path: Path, heldout: Path) -> None:
    folder = make_run(tmp_path, "standard", "uniform")

    def refused(told: str, text: Path = heldout, length: int = LENGTH) -> None:
        with pytest.raises(UserError, match=told) as error:
            analyse_run(folder, text, folder, context_length=length, device="cpu")
        assert "\n" not in str(error.value)
        assert not list(folder.glob("*.parquet")), "a failed analysis must leave no table"

    refused("local focus 3: a map of 3 positions has none", length=3)
    refused("nowhere/manifest.json: no such file", tmp_path / "nowhere")
    refused("the held-out documents do not fill one row of 12", write_heldout(tmp_path / "short", [[1], [0]]))
    (folder / "model" / "model.safetensors").write_bytes(b"torn")
    refused("not a whole safetensors file")
    (folder / "record.json").unlink()
    refused("record.json: no such file")
