"""fixedseqqk: as rndembqk, with the side stream X⁰ = Emb(t_s) of one fixed token sequence t_s (docs/method.md).

t_s is a text of the settings, cut to the side stream's length; it is saved with the model as `model.side_input_ids`.
"""

from __future__ import annotations

from typing import ClassVar

from deconattn.mixers import rndembqk
from deconattn.mixers.base import SideStream


class FixedSeqQK(rndembqk.RndEmbQK):
    """Softmax attention with one map for the whole batch, made by a fixed text."""

    side_stream: ClassVar[SideStream | None] = "text"


flops, state_bytes = rndembqk.flops, rndembqk.state_bytes
