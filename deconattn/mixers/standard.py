"""standard: A = softmax(q·k / √dh), causal (Vaswani et al., 2017; SPEC §3)."""

from __future__ import annotations

from torch import Tensor

from deconattn.mixers._contract import QKVMixer
from deconattn.mixers._softmax import softmax_attention, softmax_map


class Standard(QKVMixer):
    """Standard attention: the reference that every other variant relaxes in one property."""

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        return softmax_map(q, k)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention(q, k, v)
