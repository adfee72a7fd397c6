"""rndembqk: queries and keys of every sequence from one random, fixed side stream (SPEC §3).

Relaxes "sequence dependency": the side stream X⁰ = ε, ε ~ N(0, σ²), goes through the same blocks as the batch, and
its queries and keys make one attention map (heads, L, L) for all sequences. ε is drawn once a seed and never
trained; it is the buffer `model.side_embeddings`. Training differentiates through the side stream; inference computes
it once.
"""

from __future__ import annotations

from typing import ClassVar

from deconattn.mixers._contract import QKSource, SideStream
from deconattn.mixers._softmax import SoftmaxMixer


class RndEmbQK(SoftmaxMixer):
    """Softmax attention with one map for the whole batch, made by a random side stream."""

    qk_source: ClassVar[QKSource] = "side"
    side_stream: ClassVar[SideStream | None] = "random"
