"""approximate: A_ij = w_ij / Σ_{m≤i} w_im with w = 1 + s + s²/2, the second-order Taylor form of exp(s) (Eq. 6; SPEC §3).

Relaxes "mathematical form". w = ((1 + s)² + 1) / 2 ≥ 1/2 always, so the normaliser needs no ε.
Reading: the three orders are normalised jointly, as Based does (Arora et al., 2024).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deconattn.mixers._blocks import BLOCK, block_attention
from deconattn.mixers._costs import FLOAT, Costs, block_pairs
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers._states import Seen, State
from deconattn.mixers._taylor import TaylorState, features, fused, switch, taylor_weights

if TYPE_CHECKING:
    from deconattn.model import ModelConfig


class Approximate(ScoreMixer):
    """Taylor attention: softmax's exponential replaced by its second-order expansion.

    Decoding keeps keys and values while they are read faster than the sums Σ φ(k)vᵀ and Σ φ(k) of the linear form,
    and turns them into those sums at `switch`.
    """

    def weights(self, s: Tensor, hidden: Tensor, reach: Tensor) -> Tensor:
        w = taylor_weights(s).masked_fill(hidden, 0.0)
        return w / w.sum(-1, keepdim=True)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.is_cuda and q.dtype != torch.float64 and q.shape[-1] >= 16:  # what the kernel is made for
            return fused(q, k, v)
        return block_attention(q, k, v, "taylor")

    def new_state(self) -> State:
        return TaylorState()

    def fill(self, state: State, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> None:
        assert isinstance(state, TaylorState) and state.rows is not None
        state.rows.fill(keys=k, values=v)
        if k.shape[2] > switch(self.config.head_dim):
            full = torch.full((len(k),), k.shape[2], device=k.device)
            state.sum_up(full if lengths is None else lengths)

    def mix_step(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        assert isinstance(state, TaylorState)
        if state.rows is not None and seen.most + 1 > switch(self.config.head_dim):
            state.sum_up(seen.rows)
        if state.rows is not None:
            return super().mix_step(q, k, v, state.rows, seen)
        return state.step(q.unflatten(1, (k.shape[1], -1)).squeeze(3), k, v)

    @classmethod
    def visited_pairs(cls, length: int) -> int:
        return block_pairs(length, BLOCK)

    @classmethod
    def costs(cls, config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> Costs:
        """As softmax attention's until `switch`; beyond it decoding reads and extends sums of fixed size, in float32.

        The one step that turns keys and values into sums extends them by every position held, and is not what is stated.
        """
        by_keys = super().costs(config, batch, length, itemsize)
        if length <= switch(config.head_dim):
            return by_keys
        one = features(config.head_dim) * (config.head_dim + 1)
        update, read = 2 * batch * config.kv_heads * one, 2 * batch * config.num_attention_heads * one
        return dataclasses.replace(
            by_keys,
            decode_flops=cls.projection_flops(config, batch, batch) + update + read,
            state_bytes=batch * config.kv_heads * one * max(itemsize, FLOAT),
        )

    @classmethod
    def mix_activation_bytes(cls, config: ModelConfig, maps: int, batch: int, length: int) -> int:
        return cls.block_activation_bytes(config, maps, batch, length)
