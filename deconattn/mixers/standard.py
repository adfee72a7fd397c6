"""standard: A = softmax(q·k / √dh), causal (Vaswani et al., 2017; docs/method.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.config import ModelConfig
from deconattn.mixers.base import ScoreMixer
from deconattn.mixers.cache import CacheLengths
from deconattn.mixers.formulas import Flops, kv_bytes, pair_flops, square_pairs


class Standard(ScoreMixer):
    """Standard attention: the reference that every other variant relaxes in one property."""

    def weights(self, s: Tensor, masked: Tensor, reach: Tensor) -> Tensor:
        return s.masked_fill(masked, -torch.inf).softmax(-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, past: CacheLengths) -> Tensor:
        mask = None
        if q.shape[2] > 1 or not past.equal:
            mask = torch.arange(keys.shape[2], device=q.device) <= past.positions(q.shape[2])[:, None, :, None]
        shape = (len(values), -1, -1, -1)  # a side stream's queries and keys are one row
        q, keys = q.expand(shape), keys.expand(shape)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=q.shape[1] != keys.shape[1])


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """The whole square: counters take the fused kernel for it, though it skips most of the upper half."""
    return pair_flops(config, batch, length, square_pairs(length))


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """Keys and values."""
    return kv_bytes(config, batch, length, itemsize)
