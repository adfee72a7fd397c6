"""softplus: A_ij = a_ij = softplus(z_ij) / Σ_{m≤i} softplus(z_im), z_ij = ln dₕ · ln i · q̂_i·k̂_j (arXiv:2501.13428v5).

No part of the paper: the worked example of a variant of one's own. Softmax is split into a positive non-linearity and an
l1 norm; queries and keys are q̂ = q/‖q‖, k̂ = k/‖k‖ after RoPE, and i is the number of keys that the query sees, so that the
first position, where ln i = 0, sees itself alone.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from deconattn.config import ModelConfig
from deconattn.layers import widened
from deconattn.mixers.base import BLOCK, ScoreMixer
from deconattn.mixers.cache import CacheLengths, QueriesKeys
from deconattn.mixers.formulas import Flops, block_pairs, kv_bytes, pair_flops

# Above it softplus(z) is z to the last bit of float64. (torch takes z from 20 on, where e^−20 is still missing.)
BEND = 40.0


class Softplus(ScoreMixer):
    """Softplus attention. Its scores before the non-linearity are the cosines q̂·k̂."""

    def queries_keys(self, source: Tensor, past: CacheLengths | None = None) -> QueriesKeys:
        q, k = super().queries_keys(source, past)
        return unit(q, self.config.head_dim**0.5), unit(k)  # scores are divided by √dₕ

    def weights(self, s: Tensor, masked: Tensor, reach: Tensor) -> Tensor:
        return softplus_weights(s, masked, reach, self.config.head_dim)


def unit(x: Tensor, length: float = 1.0) -> Tensor:
    """x (…, dₕ) scaled to a `length`."""
    return (F.normalize(widened(x), dim=-1) * length).to(x.dtype)


def softplus_weights(cosines: Tensor, masked: Tensor, reach: Tensor, head_dim: int) -> Tensor:
    """a, rows that sum to 1, of q̂·k̂ (…, n, m); `masked` and `reach` as `ScoreMixer.weights` has them."""
    z = cosines * (math.log(head_dim) * reach.to(cosines.dtype).log())
    w = F.softplus(z, threshold=BEND).masked_fill(masked, 0.0)
    return w / w.sum(-1, keepdim=True)


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """Scores and sums over values, by blocks of queries."""
    return pair_flops(config, batch, length, block_pairs(length, BLOCK))


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """Keys and values."""
    return kv_bytes(config, batch, length, itemsize)
