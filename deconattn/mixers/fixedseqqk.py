"""fixedseqqk: as rndembqk, with the side stream X⁰ = Emb(t_s) of one fixed token sequence t_s (SPEC §3).

t_s is a text of the settings, cut to the side stream's length; it is saved with the model as `model.side_input_ids`.
"""

from __future__ import annotations

from typing import ClassVar

from deconattn.mixers._contract import QKSource, SideStream
from deconattn.mixers._softmax import SoftmaxMixer


class FixedSeqQK(SoftmaxMixer):
    """Softmax attention with one map for the whole batch, made by a fixed text."""

    qk_source: ClassVar[QKSource] = "side"
    side_stream: ClassVar[SideStream | None] = "text"
