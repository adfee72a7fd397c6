"""fixedseqqk: as rndembqk, with the side stream X⁰ = Emb(t_s) of one fixed token sequence t_s (SPEC §3).

t_s is a text of the settings, cut to the side stream's length; it is saved with the model as `model.side_input_ids`.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from deconattn.mixers._contract import QKSource, QKVMixer, SideStream
from deconattn.mixers._softmax import shared_softmax_attention, softmax_map


class FixedSeqQK(QKVMixer):
    """Softmax attention with one map for the whole batch, made by a fixed text."""

    qk_source: ClassVar[QKSource] = "side"
    side_stream: ClassVar[SideStream | None] = "text"

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        return softmax_map(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return shared_softmax_attention(q, k, v)
