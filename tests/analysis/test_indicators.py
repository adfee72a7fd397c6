"""Indicators and histograms, against hand-computed values, loops and exact quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deconattn.analysis import histogram as bins
from deconattn.analysis import indicators
from deconattn.errors import UserError

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
    assert indicators.head_diversity(attention[:1]).item() == 0.0
    with pytest.raises(UserError, match="local focus 3: a map of 3 positions has none; must be at most 2"):
        indicators.local_focus(attention, 3)


def loop_form(heads: list[list[list[float]]]) -> dict[str, list[float]]:
    """The same indicators position by position in plain Python, from method.md, Attention indicators."""
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
    far = inner[inner > 1]
    assert np.max(np.diff(far) / far[:-1]) < 0.06
    low, high = bins.bounds()
    assert low[0] == -np.inf and high[-1] == np.inf and np.array_equal(low[1:], high[:-1])


def test_histogram_counts_every_score_once_and_keeps_the_extremes() -> None:
    inner = bins.edges()
    scores = np.concatenate([inner[:-1], [-5e7, -2e3, 0.0, 0.01, 999.0, 1000.0, 1001.0, 3e4, 8e8]]).astype(np.float32)
    histogram = bins.ScoreHistogram()
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
def test_quantiles_are_within_half_a_bin_of_the_exact_ones(spread: float) -> None:
    scores = np.random.default_rng(0).standard_normal(50_000).astype(np.float32) * np.float32(spread) + 1
    histogram = bins.ScoreHistogram()
    histogram.add(torch.from_numpy(scores))
    row = histogram.rows()[0]
    for name, share in bins.QUANTILES.items():
        exact = float(np.quantile(scores, share))
        assert abs(math.asinh(row[name]) - math.asinh(exact)) < 0.5 / bins.PER_UNIT, name
