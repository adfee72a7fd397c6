"""approximate: A_ij = w_ij / Σ_{m≤i} w_im with w = 1 + s + s²/2, the second-order Taylor form of exp(s) (the paper's Eq. 6).

Relaxes "mathematical form". w = ((1 + s)² + 1) / 2 ≥ 1/2 always, so the normaliser needs no ε.
Reading: the three orders are normalised jointly, as Based does (Arora et al., 2024).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.layers import widened
from deconattn.mixers.base import BLOCK, ScoreMixer, future, scores, with_one
from deconattn.mixers.blocks import block_attention
from deconattn.mixers.cache import CacheLengths, KVCache, State, lasting
from deconattn.mixers.formulas import FLOAT, Flops, block_pairs, kv_bytes, pair_flops, projection_flops

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SUMMED_AT_ONCE = 256  # positions whose φ(k) is held at a time


class Approximate(ScoreMixer):
    """Taylor attention: softmax's exponential replaced by its second-order expansion.

    Decoding keeps keys and values while they are read faster than the sums Σ φ(k)vᵀ and Σ φ(k) of the linear form,
    and turns them into those sums beyond `switch`.
    """

    def weights(self, s: Tensor, masked: Tensor, reach: Tensor) -> Tensor:
        w = taylor_weights(s).masked_fill(masked, 0.0)
        return w / w.sum(-1, keepdim=True)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.is_cuda and q.dtype != torch.float64 and q.shape[-1] >= 16:  # what the kernel is made for
            return fused(q, k, v)
        return block_attention(q, self.repeat(k), self.repeat(v), block_weights)

    def new_state(self) -> State:
        return TaylorState()

    def mix_step(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, past: CacheLengths, counts: Tensor | None
    ) -> Tensor:
        assert isinstance(state, TaylorState)
        if "sums" in state.tensors:
            return state.step(q.unflatten(1, (k.shape[1], -1)), k, v, counts)
        mixed = super().mix_step(q, k, v, state, past, counts)
        seen = past.after(v.shape[2], counts)
        if seen.most > switch(self.config.head_dim):
            state.sum_up(seen.rows)
        return mixed


def taylor_weights(s: Tensor) -> Tensor:
    """w = 1 + s + s²/2: of maps and decoding; a training computes it in `block_weights`, on a GPU in `fused`."""
    return 1 + s * (1 + 0.5 * s)


def block_weights(s: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights w(s), their derivative 1 + s, and row sums, of causal scores s (N, n, start + n). Overwrites s.

    w = ((1 + s)² + 1) / 2, which is `taylor_weights`.
    """
    n = s.shape[-2]
    seen = torch.ones(n, n, dtype=s.dtype, device=s.device).tril_()
    slope = s.add_(1)
    w = slope.square().add_(1).mul_(0.5)
    for x in (w, slope):  # multiplied: filling by a mask takes ten times as long
        x[..., start:].mul_(seen)
    return w, slope, w.sum(-1, keepdim=True)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Taylor attention of q (B, heads, L, dh) and k, v (B, KV heads, L, dh) by one kernel: the softmax of log(1 + s + s²/2).

    flex_attention has a backward on GPUs alone.
    """
    # Imported when it is used: the compiler behind it takes seconds to load.
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = compiled_kernel() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
    mask, grouped = causal_mask(q.shape[2], str(q.device)), q.shape[1] != k.shape[1]
    mixed: Tensor = kernel(q, k, v, score_mod=log_taylor, block_mask=mask, enable_gqa=grouped)
    return mixed


@functools.cache
def compiled_kernel() -> Callable[..., Tensor]:
    """flex_attention, which is fast only when compiled, for callers that are not."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def causal_mask(length: int, device: str) -> BlockMask:
    """Which blocks of keys each block of queries sees: made once for a length and device.

    Compiled code reads what was made before, by the forward that measures a micro-batch; else it makes its own each time.
    """
    if (length, device) in _masks:
        return _masks[length, device]
    from torch.nn.attention.flex_attention import create_block_mask

    if torch.compiler.is_compiling():
        return create_block_mask(causal, None, None, length, length, device=device)
    with torch.inference_mode(False):  # made while generating, it must still serve a later training
        _masks[length, device] = create_block_mask(causal, None, None, length, length, device=device)
    return _masks[length, device]


def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Whether a query sees a key, a mask_mod of flex_attention."""
    return query >= key


_masks: dict[tuple[int, str], BlockMask] = {}


def log_taylor(s: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """log(1 + s + s²/2), a score_mod of flex_attention."""
    return torch.log(taylor_weights(s))


def features(head_dim: int) -> int:
    """Size of φ: 1, dh, and the dh(dh + 1)/2 different products of two entries."""
    return 1 + head_dim + head_dim * (head_dim + 1) // 2


def phi(x: Tensor) -> Tensor:
    """φ(x) (…, features) of q or k (…, dh), so that φ(q)·φ(k) = 1 + s + s²/2, in at least float32."""
    size = x.shape[-1]
    x = widened(x) * size**-0.25  # of both alike, so that their product carries 1/√dh
    row, column = torch.triu_indices(size, size, device=x.device)
    # Each product of two different entries stands for both orders: weight 2·½; a square for itself: ½.
    weight = x.new_ones(len(row)).masked_fill(row == column, 0.5**0.5)
    return torch.cat([torch.ones_like(x[..., :1]), x, x[..., row] * x[..., column] * weight], dim=-1)


def switch(head_dim: int) -> int:
    """The length beyond which the sums are cheaper to decode from than keys and values.

    A step reads L keys and values, 2·L·dh numbers and 4·L·dh FLOPs a head; it reads and writes F·(dh + 1) sums, with
    4·F·(dh + 1) FLOPs. Both agree on L = F·(dh + 1) / dh.
    """
    return features(head_dim) * (head_dim + 1) // head_dim


class TaylorState(KVCache):
    """Keys and values of the past, and from `sum_up` on Σ φ(k)·[v, 1], (B, KV heads, features, dh + 1), in their place."""

    def sum_up(self, lengths: Tensor) -> None:
        """Turn the first `lengths` (B,) keys and values of each row into sums."""
        keys, values = self.tensors["keys"], self.tensors["values"]
        with lasting():  # `step` adds to them in place
            sums = torch.zeros((), device=keys.device)
            for start in range(0, keys.shape[2], SUMMED_AT_ONCE):
                k, v = (x[:, :, start : start + SUMMED_AT_ONCE] for x in (keys, values))
                seen = torch.arange(start, start + k.shape[2], device=k.device) < lengths[:, None]
                sums = sums + phi(k).transpose(-1, -2) @ (with_one(v) * seen[:, None, :, None])
        self.tensors, self.croppable = {"sums": sums}, False

    def step(self, q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None) -> Tensor:
        """Add n more k and v (B, KV heads, n, dh); returns what q (B, KV heads, group, n, dh) reads, (B, heads, n, dh)."""
        sums, values, count = self.tensors["sums"], with_one(v), v.shape[2]
        if counts is not None:
            values = values * (torch.arange(count, device=v.device) < counts[:, None])[:, None, :, None]
        new = phi(k).transpose(-1, -2).flatten(0, 1)
        if count == 1:  # a single token reads sums that it is part of
            sums.flatten(0, 1).baddbmm_(new, values.flatten(0, 1))
            mixed = (phi(q).squeeze(3) @ sums).unsqueeze(3)
        else:  # among the new tokens, each sees itself and earlier ones
            w = taylor_weights(scores(widened(q), widened(k).unsqueeze(2))).masked_fill(future(count, q.device), 0.0)
            mixed = phi(q) @ sums.unsqueeze(2) + w @ values.unsqueeze(2)
            sums.flatten(0, 1).baddbmm_(new, values.flatten(0, 1))
        return (mixed[..., :-1] / mixed[..., -1:]).to(v.dtype).flatten(1, 2)


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """As softmax attention's until `switch`; beyond it a step reads and extends sums of fixed size.

    The one step that turns keys and values into sums costs more: it reads keys, and sums up all that are held.
    """
    by_keys = pair_flops(config, batch, length, block_pairs(length, BLOCK))
    if length <= switch(config.head_dim):
        return by_keys
    sums = features(config.head_dim) * (config.head_dim + 1)
    decode = projection_flops(config, batch, batch) + 2 * batch * (config.kv_heads + config.num_attention_heads) * sums
    return Flops(by_keys.prefill_square, by_keys.prefill_causal, by_keys.prefill, decode)


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """Keys and values until `switch`; beyond it sums, in float32 or more."""
    if length <= switch(config.head_dim):
        return kv_bytes(config, batch, length, itemsize)
    return batch * config.kv_heads * features(config.head_dim) * (config.head_dim + 1) * max(itemsize, FLOAT)
