"""staticembqk: queries and keys of every layer from the token embeddings E(t), values from the hidden state (docs/method.md).

Relaxes "current QK": the attention weights depend on the input, but not on what this layer has computed.
Reading: the layer's own input RMSNorm is applied to E(t) first.
"""

from __future__ import annotations

from typing import ClassVar

from deconattn.mixers import standard
from deconattn.mixers.base import QKSource


class StaticEmbQK(standard.Standard):
    """Softmax attention whose queries and keys read the embeddings of the actual input."""

    qk_source: ClassVar[QKSource] = "embeddings"


flops, state_bytes = standard.flops, standard.state_bytes
