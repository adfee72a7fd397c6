"""rndembqk: queries and keys of every sequence from one random, fixed side stream (SPEC §3).

Relaxes "sequence dependency": the side stream X⁰ = ε, ε ~ N(0, σ²), goes through the same blocks as the batch, and
its queries and keys make one attention map (heads, L, L) for all sequences. ε is drawn once a seed and never
trained; it is the buffer `model.side_embeddings`. Training differentiates through the side stream.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from deconattn.mixers._contract import QKSource, QKVMixer, SideStream
from deconattn.mixers._softmax import shared_softmax_attention, softmax_map


class RndEmbQK(QKVMixer):
    """Softmax attention with one map for the whole batch, made by a random side stream."""

    qk_source: ClassVar[QKSource] = "side"
    side_stream: ClassVar[SideStream | None] = "random"

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        return softmax_map(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return shared_softmax_attention(q, k, v)
