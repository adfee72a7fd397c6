"""Histogram of one layer's scores before the softmax, in bins that are the same for every run, layer and figure.

Edges are sinh(k / 25) for k = −363 … 363, in float32: next to zero a bin is 0.04 wide, far from it 4 % of its
place, and the outermost edges lie at ±1.01·10⁶. Two open bins hold what lies beyond. A bin holds low ≤ score < high.
The report reads the bins, so torch is imported only where scores are counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PER_UNIT = 25
OUTERMOST = 363
LARGE = 1e3
"""Scores beyond ±LARGE are counted apart: the paper's "outliers" (method.md, What the paper found)."""
QUANTILES: dict[str, float] = {
    "p0_1": 0.001, "p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5,
    "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99_9": 0.999,
}  # fmt: skip
"""Column → share of the scores that lie below it."""
COUNTED_AT_ONCE = 2**22


def edges() -> np.ndarray:
    """All inner edges, ascending, float64 values that float32 holds exactly: (727,)."""
    return np.sinh(np.arange(-OUTERMOST, OUTERMOST + 1) / PER_UNIT).astype(np.float32).astype(np.float64)


def bounds() -> tuple[np.ndarray, np.ndarray]:
    """Low and high of every bin, the open ones included: two arrays (728,)."""
    inner = edges()
    return np.append(-np.inf, inner), np.append(inner, np.inf)


class ScoreHistogram:
    """Counts by bin, extremes, and how many scores lie beyond ±`LARGE`; the scores themselves are not kept."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(edges()) + 1, np.int64)
        self.minimum, self.maximum = math.inf, -math.inf
        self.beyond = 0

    def add(self, scores: Tensor) -> None:
        """Count scores of any shape; all of them are finite."""
        import torch

        inner = torch.from_numpy(edges()).to(device=scores.device, dtype=scores.dtype)
        for piece in scores.flatten().split(COUNTED_AT_ONCE):
            index = torch.bucketize(piece, inner, right=True)
            self.counts += index.bincount(minlength=len(self.counts)).cpu().numpy()
            self.minimum = min(self.minimum, float(piece.min()))
            self.maximum = max(self.maximum, float(piece.max()))
            self.beyond += int((piece.abs() > LARGE).sum())

    def quantiles(self) -> dict[str, float]:
        """`QUANTILES` of the scores, spread evenly within each bin on the asinh scale; off by a part of a bin."""
        low, high = bounds()
        places = np.arcsinh(np.clip(np.append(low, high[-1]), self.minimum, self.maximum))
        ranks = np.array(list(QUANTILES.values())) * self.counts.sum()
        found = np.sinh(np.interp(ranks, np.append(0, np.cumsum(self.counts)), places))
        return dict(zip(QUANTILES, np.clip(found, self.minimum, self.maximum).tolist(), strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """A row per bin that holds scores, with the columns of `schema.SCORES` that do not name run and layer."""
        low, high = bounds()
        total = int(self.counts.sum())
        layer = {"total": total, "minimum": self.minimum, "maximum": self.maximum}
        layer |= {"share_beyond_1000": self.beyond / total, **self.quantiles()}
        filled = np.flatnonzero(self.counts)
        return [{"bin_low": low[k], "bin_high": high[k], "count": int(self.counts[k]), **layer} for k in filled]
