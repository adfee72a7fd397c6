"""softplus_reweighted: A_ij = r_ij / Σ_{m≤i} r_im, r_ij = ReLU(i·a_ij − o_i)^p, of softplus' a (arXiv:2501.13428v5).

No part of the paper. i is the number of keys that the query sees, p = 15, o_i = 0 for i ≤ 3 and 1 beyond: from the fourth
position on, keys of less than average weight get none. Where all r are 0, as with equal weights, A = a.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deconattn.layers import widened, without_autocast
from deconattn.mixers.softplus import Softplus, flops, softplus_weights, state_bytes

POWER, WITHOUT_OFFSET = 15, 3

__all__ = ["SoftplusReweighted", "flops", "state_bytes"]


class SoftplusReweighted(Softplus):
    """Softplus attention whose weights are sharpened; a softmax of p·ln ReLU(i·a − o), as x¹⁵ overflows float32 above 370."""

    def weights(self, s: Tensor, masked: Tensor, reach: Tensor) -> Tensor:
        a = softplus_weights(s, masked, reach, self.config.head_dim)
        x = reach * a - (reach > WITHOUT_OFFSET).to(a.dtype)
        kept = (x > 0) & ~masked
        equal = ~kept.any(-1, keepdim=True)
        # Where nothing is kept, logarithms are finite, so that the row that is not taken has a finite gradient.
        logs = (POWER * x.where(kept, 1.0).log()).masked_fill(~(kept | equal), -torch.inf)
        return a.where(equal, logs.softmax(-1))

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        # The power multiplies the relative error of a weight by p: scores are float32 under autocast, too.
        with without_autocast(v.device):
            return super()._rows(widened(q), widened(k), v, reach)
