"""Indicators, histograms and the analysis of a run, against hand-computed values, loops and the naive decoder."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deconattn.analysis import bins, indicators, layers
from deconattn.analysis.heldout import spread_rows
from deconattn.analysis.histogram import ScoreHistogram
from deconattn.analysis.run import analyse_run
from deconattn.analysis.schema import reason_of
from deconattn.errors import UserError
from tests.make_attention import save_tiny_model, write_heldout
from tests.reference import naive

VARIANTS = ("standard", "mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
FIXED = ("rndembqk", "fixedseqqk")
LENGTH = 12

# Two heads of three positions, small enough for pen and paper.
FIRST = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
SECOND = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
LN2 = math.log(2)


def test_indicators_of_a_map_done_by_hand() -> None:
    attention = torch.tensor([FIRST, SECOND], dtype=torch.float64)
    expected = {
        # rows of the first head: 0, ln 2, 2·(¼ ln 4) + ½ ln 2; of the second: 0, 0, ln 2
        "entropy": (indicators.entropy(attention), [(0 + LN2 + 1.5 * LN2) / 3, LN2 / 3]),
        "concentration": (indicators.concentration(attention), [math.sqrt(1 + 0.5 + 0.375), math.sqrt(1 + 1 + 0.5)]),
        "sink": (indicators.sink(attention), [1.75 / 3, 2.5 / 3]),
        "local 0": (indicators.local_focus(attention, 0), [2 / 3, 1.5 / 3]),
        "local 1": (indicators.local_focus(attention, 1), [(0.5 + 0.25) / 2, (1 + 0) / 2]),
        "local 2": (indicators.local_focus(attention, 2), [0.25, 0.5]),
    }
    for name, (value, by_hand) in expected.items():
        torch.testing.assert_close(value, torch.tensor(by_hand, dtype=torch.float64), msg=name)
    # |a − b| / 2 in each of the six places: 0; ¼, ¼; ⅛, ⅛, 0
    assert indicators.head_diversity(attention).item() == pytest.approx(2 / (3 * 4) * (0.25 + 0.25 + 0.125 + 0.125))


def test_one_head_has_no_diversity_and_a_map_too_short_has_no_focus() -> None:
    attention = torch.tensor([FIRST], dtype=torch.float64)
    assert indicators.head_diversity(attention).item() == 0.0
    with pytest.raises(ValueError, match="local focus 3"):
        indicators.local_focus(attention, 3)


def loop_form(heads: list[list[list[float]]]) -> dict[str, list[float]]:
    """The same indicators position by position in plain Python, from SPEC §7."""
    count, length = len(heads), len(heads[0])
    out: dict[str, list[float]] = {name: [] for name in indicators.PER_HEAD}
    for a in heads:
        logs = [-p * math.log(p) for row in a for p in row if p > 0]
        out["entropy"].append(sum(logs) / length)
        out["concentration"].append(math.sqrt(sum(p * p for row in a for p in row)))
        out["sink"].append(sum(a[i][0] for i in range(length)) / length)
        for n in range(4):
            reached = [a[i][i - n] for i in range(length) if i >= n]
            out[f"local_focus_{n}"].append(sum(reached) / len(reached))
    spread = 0.0
    for i in range(length):
        for j in range(i + 1):
            mean = sum(a[i][j] for a in heads) / count
            spread += math.sqrt(sum((a[i][j] - mean) ** 2 for a in heads) / count)
    out["head_diversity"] = [2 / (length * (length + 1)) * spread]
    return out


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0, 200.0])
def test_indicators_agree_with_loops(sharpness: float) -> None:
    scores = sharpness * torch.randn(3, 5, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    attention = scores.masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), -math.inf).softmax(-1)
    found = indicators.indicators(attention)
    assert set(found) == {*indicators.PER_HEAD, *indicators.PER_LAYER}
    for sequence in range(3):
        for name, expected in loop_form(attention[sequence].tolist()).items():
            assert found[name][sequence].reshape(-1).tolist() == pytest.approx(expected, abs=1e-12), name


def test_bins_are_fixed_and_cover_what_outliers_need() -> None:
    inner = bins.edges()
    assert (np.diff(inner) > 0).all() and np.array_equal(inner, -inner[::-1])
    assert inner[-1] > 1e6 and 0.0 in inner
    assert np.array_equal(inner, inner.astype(np.float32)), "an edge that float32 cannot hold would move scores"
    beyond = np.abs(inner) > 1
    assert np.max(np.diff(inner[beyond & (inner > 0)]) / inner[beyond & (inner > 0)][:-1]) < 0.06
    low, high = bins.bounds()
    assert low[0] == -np.inf and high[-1] == np.inf and np.array_equal(low[1:], high[:-1])


def test_histogram_counts_every_score_once_and_keeps_the_extremes() -> None:
    inner = bins.edges()
    scores = np.concatenate([inner[:-1], [-5e7, -2e3, 0.0, 0.01, 999.0, 1000.0, 1001.0, 3e4, 8e8]]).astype(np.float32)
    histogram = ScoreHistogram()
    for piece in np.array_split(scores, 4):
        histogram.add(torch.from_numpy(piece).reshape(1, -1))
    rows = histogram.rows()
    assert sum(row["count"] for row in rows) == len(scores) == rows[0]["total"]
    for row in rows:
        inside = [s for s in scores.tolist() if row["bin_low"] <= s < row["bin_high"]]
        assert row["count"] == len(inside) > 0
    assert (rows[0]["minimum"], rows[0]["maximum"]) == (scores.min(), scores.max())
    assert rows[0]["share_beyond_1000"] == sum(abs(s) > 1000 for s in scores.tolist()) / len(scores)


@pytest.mark.parametrize("spread", [0.3, 4.0, 2000.0])
def test_quantiles_are_within_a_bin_of_the_exact_ones(spread: float) -> None:
    scores = np.random.default_rng(0).standard_normal(50_000).astype(np.float32) * np.float32(spread) + 1
    histogram = ScoreHistogram()
    histogram.add(torch.from_numpy(scores))
    row = histogram.rows()[0]
    for name, share in bins.QUANTILES.items():
        exact = float(np.quantile(scores, share))
        assert abs(math.asinh(row[name]) - math.asinh(exact)) < 1 / bins.PER_UNIT, name
    with pytest.raises(ValueError, match="without a score"):
        bins.quantiles(np.zeros_like(histogram.counts), 0.0, 1.0)


# ---- a run ----------------------------------------------------------------------------------------------------------


def make_run(root: Path, variant: str, layout: str, status: str = "finished", scale: float = 4.0) -> Path:
    """A run folder with an untrained model."""
    name = f"tiny-{variant}-{layout}-s3-0123abcd"
    folder = root / "runs" / name
    fields = save_tiny_model(folder / "model", variant, layout, scale)
    spec = {"run": name, "model": {"name": "tiny", **fields}, "seed": 3, "tokens": {"id": "t"}}
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "done.json").write_text(json.dumps({"run": name, "status": status}))
    return folder


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    random = np.random.default_rng(5)
    return write_heldout(
        tmp_path / "heldout.parquet", [random.integers(1, 61, n).tolist() + [0] for n in (17, 3, 40, 25, 9)]
    )


def reference(folder: Path, rows: np.ndarray) -> naive.Trace:
    state = {
        name: t.double() if t.is_floating_point() else t
        for name, t in load_file(folder / "model/model.safetensors").items()
    }
    config = json.loads((folder / "model/config.json").read_text())
    return naive.forward(config, state, torch.from_numpy(rows))


def used_scores(scores: Tensor, kind: str) -> np.ndarray:
    """The scores that causal queries see, of (B, heads, L, L), or of (B, heads, L) where there is one a key."""
    if kind == "nonapproximate":
        return scores.flatten().numpy()
    i, j = np.tril_indices(scores.shape[-1])
    return scores[..., i, j].flatten().numpy()


@pytest.mark.parametrize(
    ("variant", "layout"), [(v, at) for v in VARIANTS for at in ("uniform", "even") if (v, at) != ("standard", "even")]
)
def test_analysis_of_a_run_agrees_with_the_naive_decoder(
    variant: str, layout: str, tmp_path: Path, heldout: Path
) -> None:
    folder = make_run(tmp_path, variant, layout)
    attention_path, scores_path = analyse_run(folder, heldout, context_length=LENGTH, sequences=3, device="cpu")
    assert (attention_path, scores_path) == (folder / "attention.parquet", folder / "scores.parquet")
    rows = spread_rows(heldout, LENGTH, 3)
    trace = reference(folder, rows)
    attention, scores = pq.read_table(attention_path).to_pandas(), pq.read_table(scores_path).to_pandas()
    standard = {layer: variant == "standard" or (layout == "even" and layer % 2 == 0) for layer in (1, 2, 3, 4)}
    present = [layer for layer in standard if variant != "mlp" or standard[layer]]
    assert sorted(attention["layer"].unique()) == sorted(scores["layer"].unique()) == present
    for table in (attention, scores):
        assert all(standard[layer] == flag for layer, flag in zip(table["layer"], table["standard"], strict=True))
    for layer in present:
        one_map = variant in FIXED and not standard[layer]
        maps = trace.maps[layer - 1]
        assert maps is not None
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
        raw = trace.scores[layer - 1]
        assert raw is not None
        exact = used_scores(raw[:1] if one_map else raw, "standard" if standard[layer] else variant)
        found = scores[scores["layer"] == layer].sort_values("bin_low")
        assert found["count"].sum() == found["total"].iloc[0] == len(exact)
        assert found["minimum"].iloc[0] == pytest.approx(exact.min(), rel=1e-4)
        assert found["maximum"].iloc[0] == pytest.approx(exact.max(), rel=1e-4)
        for edge in (-1.0, 0.5, 3.0):
            below = found.loc[found["bin_high"] <= bins.edges()[np.searchsorted(bins.edges(), edge)], "count"].sum()
            exactly = (exact < bins.edges()[np.searchsorted(bins.edges(), edge)]).sum()
            assert abs(below - exactly) <= 2, "more than rounding moved scores between bins"
    assert set(attention["run"]) <= {folder.name} and set(attention["model"]) <= {"tiny"}
    assert set(attention["seed"]) <= {3} and set(attention["context_length"]) <= {LENGTH}


def test_uniform_mlp_has_tables_without_rows_and_without_a_reason(tmp_path: Path, heldout: Path) -> None:
    paths = analyse_run(make_run(tmp_path, "mlp", "uniform"), heldout, context_length=LENGTH, device="cpu")
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
        paths = analyse_run(
            folder, heldout, context_length=LENGTH, sequences=5, device="cpu", out_folder=tmp_path / str(held)
        )
        tables.append([pq.read_table(path).to_pandas() for path in paths])
    for attention, scores in tables[1:]:
        assert attention["value"].to_numpy() == pytest.approx(tables[0][0]["value"].to_numpy(), abs=1e-6)
        assert scores["count"].sum() == tables[0][1]["count"].sum()


def test_scores_far_beyond_a_thousand_are_counted_and_maps_stay_finite(tmp_path: Path, heldout: Path) -> None:
    folder = make_run(tmp_path, "nonapproximate", "uniform", scale=400.0)
    paths = analyse_run(folder, heldout, context_length=LENGTH, device="cpu")
    attention, scores = (pq.read_table(path).to_pandas() for path in paths)
    assert np.isfinite(attention["value"]).all()
    assert scores["share_beyond_1000"].max() > 0.05
    beyond = scores[(scores["bin_high"] <= -1100) | (scores["bin_low"] >= 1100)]
    assert len(beyond) > 0 and scores["maximum"].max() > 1000


def test_a_diverged_run_leaves_no_rows_but_the_reason(
    tmp_path: Path, heldout: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_run(tmp_path, "standard", "uniform", status="diverged")
    paths = analyse_run(folder, heldout, context_length=LENGTH, device="cpu")
    assert [pq.read_table(path).num_rows for path in paths] == [0, 0]
    assert [reason_of(path) for path in paths] == ["training diverged"] * 2
    assert "training diverged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weight", "poison"),
    [
        ("model.layers.2.self_attn.k_proj.weight", math.nan),
        ("model.layers.2.self_attn.k_proj.weight", 3e38),  # finite, but no score made of it is
        ("model.layers.3.mlp.down_proj.weight", math.inf),  # after the last map
        ("lm_head.weight", math.nan),
    ],
)
def test_weights_or_maps_that_are_not_finite_leave_no_rows(
    weight: str, poison: float, tmp_path: Path, heldout: Path
) -> None:
    folder = make_run(tmp_path, "standard", "uniform")
    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors[weight][0] = poison
    save_file(tensors, path)
    paths = analyse_run(folder, heldout, context_length=LENGTH, device="cpu")
    assert [pq.read_table(p).num_rows for p in paths] == [0, 0]
    assert "finite" in str(reason_of(paths[0]))


def test_rows_are_spread_over_all_of_the_heldout_text(tmp_path: Path) -> None:
    documents = [list(range(1, n)) + [0] for n in (30, 2, 55, 8, 21, 300)]
    path = write_heldout(tmp_path / "heldout.parquet", documents)
    packed = np.array([token for document in documents for token in document])
    every = spread_rows(path, 16, 10_000)
    assert np.array_equal(every, packed[: len(packed) // 16 * 16].reshape(-1, 16))
    few = spread_rows(path, 16, 4)
    assert np.array_equal(few, every[[0, len(every) // 4, len(every) // 2, 3 * len(every) // 4]])


def test_what_does_not_fit_is_one_clear_line(tmp_path: Path, heldout: Path) -> None:
    folder = make_run(tmp_path, "standard", "uniform")

    def problem(**keywords: object) -> str:
        with pytest.raises(UserError) as error:
            analyse_run(
                **{"run_folder": folder, "heldout": heldout, "context_length": LENGTH, "device": "cpu", **keywords}
            )
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "context length 33" in problem(context_length=33) and "4 to 32" in problem(context_length=33)
    assert "context length 3 " in problem(context_length=3)
    assert "number of sequences 0" in problem(sequences=0)
    assert "no such file" in problem(heldout=tmp_path / "nowhere.parquet")
    assert "do not fill one row" in problem(heldout=write_heldout(tmp_path / "short.parquet", [[1, 2, 0]]))
    assert "beyond the model's vocabulary of 61" in problem(
        heldout=write_heldout(tmp_path / "big.parquet", [[99] * 40])
    )
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    assert "list column" in problem(heldout=tmp_path / "other.parquet")
    (folder / "model" / "model.safetensors").write_bytes(b"torn")
    assert "not a whole safetensors file" in problem()
    (folder / "model" / "model.safetensors").unlink()
    assert "no such file" in problem()
    (folder / "done.json").unlink()
    assert "done.json: no such file" in problem()
    assert not list(folder.glob("*.parquet")), "a failed analysis must leave no table"


def test_the_analysis_imports_no_transformers_and_its_schema_no_torch() -> None:
    code = (
        "import sys; import deconattn.analysis.schema, deconattn.analysis.bins; assert 'torch' not in sys.modules;"
        "import deconattn.analysis.run; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
