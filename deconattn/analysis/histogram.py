"""One layer's scores before the softmax, counted into the fixed bins as they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deconattn.analysis import bins

PIECE = 2**22  # scores counted at once


class ScoreHistogram:
    """Counts by bin, extremes, and how many lie beyond ±`bins.LARGE`; the scores themselves are not kept."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(bins.bounds()[0]), np.int64)
        self.minimum, self.maximum = math.inf, -math.inf
        self.beyond = 0

    def add(self, scores: Tensor) -> None:
        """Count scores of any shape; all of them are finite."""
        inner = torch.from_numpy(bins.edges()).to(device=scores.device, dtype=scores.dtype)
        for piece in scores.flatten().split(PIECE):
            index = torch.bucketize(piece, inner, right=True)
            self.counts += torch.bincount(index, minlength=len(self.counts)).cpu().numpy()
            self.minimum = min(self.minimum, float(piece.min()))
            self.maximum = max(self.maximum, float(piece.max()))
            self.beyond += int((piece.abs() > bins.LARGE).sum())

    def rows(self) -> list[dict[str, Any]]:
        """A row a bin that holds scores, as `schema.SCORES` has them, without the identity of run and layer."""
        low, high = bins.bounds()
        total = int(self.counts.sum())
        layer = {
            "total": total,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "share_beyond_1000": self.beyond / total,
            **bins.quantiles(self.counts, self.minimum, self.maximum),
        }
        return [
            {"bin_low": low[k], "bin_high": high[k], "count": int(self.counts[k]), **layer}
            for k in np.flatnonzero(self.counts)
        ]
