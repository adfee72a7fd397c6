"""rndembqk: queries and keys of every sequence from one random, fixed side stream (docs/method.md).

Relaxes "sequence dependency": the side stream X⁰ = ε, ε ~ N(0, σ²), goes through the same blocks as the batch, and
its queries and keys make one attention map (heads, L, L) for all sequences. ε is drawn once a seed and never
trained; it is the buffer `model.side_embeddings`. Training differentiates through the side stream; inference computes
it once.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.mixers.base import BLOCK, QKSource, SideStream
from deconattn.mixers.blocks import block_attention, softmax
from deconattn.mixers.formulas import Flops, block_pairs, kv_bytes, pair_flops
from deconattn.mixers.standard import Standard


class RndEmbQK(Standard):
    """Softmax attention with one map for the whole batch, made by a random side stream."""

    qk_source: ClassVar[QKSource] = "side"
    side_stream: ClassVar[SideStream | None] = "random"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.is_cuda:  # the fused kernel makes the map again for each sequence, and is faster still
            shape = (len(v), -1, -1, -1)
            return super().mix(q.expand(shape), k.expand(shape), v)
        return block_attention(q, self.repeat(k), self.repeat(v), softmax)


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """One map for the batch, by blocks of queries, as on a CPU."""
    return pair_flops(config, batch, length, block_pairs(length, BLOCK), side=True)


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """Values, and the side stream's queries and keys."""
    return kv_bytes(config, batch, length, itemsize, side=True)
