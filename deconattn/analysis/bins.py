"""The fixed bins of the score histograms: symmetric-logarithmic, the same for every run, layer and figure.

Edges are sinh(k / 25) for k = −363 … 363, in float32: next to zero a bin is 0.04 wide, far from it 4 % of its
place, and the outermost edges lie at ±1.01·10⁶. Two open bins hold what lies beyond. A bin holds low ≤ score < high.
"""

from __future__ import annotations

import numpy as np

PER_UNIT = 25
OUTERMOST = 363
LARGE = 1e3
"""Scores beyond ±LARGE are counted apart: the paper's "outliers" (SPEC §9)."""
QUANTILES: dict[str, float] = {
    "p0_1": 0.001, "p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5,
    "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99_9": 0.999,
}  # fmt: skip
"""Column → share of the scores that lie below it."""


def edges() -> np.ndarray:
    """All inner edges, ascending, float64 values that float32 holds exactly: (727,)."""
    return np.sinh(np.arange(-OUTERMOST, OUTERMOST + 1) / PER_UNIT).astype(np.float32).astype(np.float64)


def bounds() -> tuple[np.ndarray, np.ndarray]:
    """Low and high of every bin, the open ones included: two arrays (728,)."""
    inner = edges()
    return np.append(-np.inf, inner), np.append(inner, np.inf)


def quantiles(counts: np.ndarray, minimum: float, maximum: float) -> dict[str, float]:
    """`QUANTILES` of counts (728,), placed evenly within a bin on the bins' own scale; off by less than a bin.

    Raises:
        ValueError: no scores.
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError("a histogram without a score has no quantiles")
    low, high = (np.arcsinh(np.clip(side, minimum, maximum)) for side in bounds())
    cumulative = np.cumsum(counts)
    found = {}
    for name, share in QUANTILES.items():
        index = int(np.searchsorted(cumulative, share * total))
        before = cumulative[index] - counts[index]
        within = (share * total - before) / counts[index]
        place = np.sinh(low[index] + within * (high[index] - low[index]))
        found[name] = float(np.clip(place, minimum, maximum))
    return found
