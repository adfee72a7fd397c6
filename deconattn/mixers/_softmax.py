"""Causal softmax attention, shared by the variants whose form is softmax(q·k / √dh)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.mixers._blocks import BLOCK, block_attention, whole_attention
from deconattn.mixers._costs import FLOAT, block_pairs, square_pairs
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers._states import Seen, State

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

FUSED_FROM = 512  # on a CPU in bf16 the fused kernel's backward is two to four times slower up to this length


class SoftmaxMixer(ScoreMixer):
    """A = softmax over j ≤ i of s (SPEC §3, standard)."""

    def weights(self, s: Tensor, hidden: Tensor, reach: Tensor) -> Tensor:
        return s.masked_fill(hidden, -torch.inf).softmax(-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= FUSED_FROM:
            return whole_attention(q, k, v)
        if self.qk_source == "side":
            return block_attention(q, k, v, "exponential")
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def mix_step(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        q, keys, values = self.past(q, k, v, state, seen)
        # The queries of a group stand where a sequence's would: they see the same keys.
        mask = None
        if not seen.equal:
            mask = (torch.arange(seen.most + 1, device=q.device) <= seen.rows[:, None])[:, None, None]
        shape = (len(values), -1, -1, -1)
        mixed = F.scaled_dot_product_attention(q.expand(shape), keys.expand(shape), values, attn_mask=mask)
        return mixed.flatten(1, 2).unsqueeze(2)

    @classmethod
    def visited_pairs(cls, length: int) -> int:
        """The square: counters take the fused kernel for it, though it skips most of the upper half."""
        return block_pairs(length, BLOCK) if cls.qk_source == "side" else square_pairs(length)

    @classmethod
    def mix_activation_bytes(cls, config: ModelConfig, maps: int, batch: int, length: int) -> int:
        """Of the fused kernel: q, k, v, its output, and the logarithm of each query's normaliser.

        The output lies as the queries do, position by position, and joins without a copy.
        """
        if cls.qk_source == "side":
            return cls.block_activation_bytes(config, maps, batch, length)
        return FLOAT * batch * length * (4 * config.hidden_size + config.num_attention_heads)
