"""standard: A = softmax(q·k / √dh), causal (Vaswani et al., 2017; SPEC §3)."""

from __future__ import annotations

from deconattn.mixers._softmax import SoftmaxMixer


class Standard(SoftmaxMixer):
    """Standard attention: the reference that every other variant relaxes in one property."""
