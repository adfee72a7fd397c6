"""The distribution of scores as it is drawn: shape, shares, pooled seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from deconattn.analysis.histogram import bounds
from deconattn.report.ridges import density, linear_width


def score_rows(counts: np.ndarray, run: str = "a") -> pd.DataFrame:
    low, high = bounds()
    held = np.flatnonzero(counts)
    frame = pd.DataFrame({"bin_low": low[held], "bin_high": high[held], "count": counts[held]})
    return frame.assign(run=run, p25=-2.0, p75=2.0, minimum=low[held[0]], maximum=high[held[-1]])


def heights_of(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Edges in scores and the heights between them."""
    linear = linear_width(rows)
    ends = rows["minimum"].min(), rows["maximum"].max()
    steps = np.linspace(*np.arcsinh(np.divide(ends, linear)), 201)
    return linear * np.sinh(steps), density(rows, steps, linear)


def test_a_normal_distribution_is_one_hump_that_holds_the_shares_of_its_scores() -> None:
    low, high = bounds()
    edges, heights = heights_of(
        score_rows(np.round(1e7 * np.diff(norm.cdf(np.append(low, high[-1]), scale=2))).astype(int))
    )
    assert heights.max() == 1.0
    smooth = np.convolve(heights, np.ones(9) / 9, "valid")
    middle = int(np.argmax(smooth))
    assert abs(edges[middle + 4]) < 0.15
    assert (np.diff(smooth[:middle]) > -1e-6).all() and (np.diff(smooth[middle:]) < 1e-6).all()
    inside = (edges[1:] <= 2) & (edges[:-1] >= -2)
    assert heights[inside].sum() / heights.sum() == pytest.approx(0.683, abs=0.03)


def test_seeds_are_pooled_and_bins_that_hold_nothing_stay_empty() -> None:
    near, far = np.zeros((2, len(bounds()[0])), int)
    near[363:366] = 10
    far[600] = 30
    edges, heights = heights_of(pd.concat([score_rows(near, "a"), score_rows(far, "b")]))
    start = bounds()[0][600]
    between = (edges[:-1] > 1.0) & (edges[1:] < start)
    assert between.sum() > 50 and heights[between].max() == 0
    assert heights[edges[:-1] >= start].sum() == pytest.approx(heights.sum() / 2, rel=0.2)
