"""softplus: A_ij = softplus(z_ij) / Σ_{m≤i} softplus(z_im) with z_ij = s_ij · ln dh · ln i, i the number of keys seen.

No part of the paper: the worked example of a variant of one's own. Softmax is split into a positive non-linearity and an
l1 norm, and the non-linearity is softplus with a scale that grows with the length (arXiv:2501.13428, its first stage).
Reading: the scale is ln dh · ln i on top of 1/√dh, i counted from 1, so that the first position sees itself alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from deconattn.mixers._scores import ScoreMixer

# Below it softplus(z) = e^z to the last bit of float64; far below, softplus itself would be 0 and its row 0 / 0.
EXPONENTIAL_BELOW = -40.0


class Softplus(ScoreMixer):
    """Softplus attention, normalised as exp(ln softplus(z)) so that a row of very negative scores stays exact."""

    # z, the clamped z, softplus and A in float32, and where z lies above; the scale of each query.
    held_a_pair: ClassVar[int] = 4 * 4 + 1
    held_a_query: ClassVar[int] = 4

    def weights(self, s: Tensor, hidden: Tensor, reach: Tensor) -> Tensor:
        z = s * (math.log(self.config.head_dim) * reach.to(s.dtype).log())
        curved = F.softplus(z.clamp(min=EXPONENTIAL_BELOW)).log()
        return curved.where(z > EXPONENTIAL_BELOW, z).masked_fill(hidden, -math.inf).softmax(-1)
