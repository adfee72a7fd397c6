"""What a mixer costs, in one convention.

A multiply-add is 2 FLOPs, and matrix products alone are counted: projections, scores, and what is summed over
positions. Softmax, RoPE, gates and norms are of lower order and left out, as the counters of PyTorch leave them out.
Of products over pairs of positions both usual counts are given: all L² of the square, and the L(L + 1)/2 that a causal
model needs. Both are the definition's, A materialised and multiplied with the values, however the fast form goes about it; a
form that needs no pairs, a running sum of one number a key, has none to count.

Activations are what autograd holds of one mixer between forward and backward in float32 on a CPU: every storage that
backward will read, counted once and whole, without the parameters, without the mixer's inputs (`hidden` and `source`, which the
layer's norm made) and without RoPE's tables, which all layers share. No mixer's backward reads its output.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """One layer's mixer for a batch of B sequences of L tokens.

    prefill_flops_square: forward over the L tokens, all L² pairs counted.
    prefill_flops_causal: the same, pairs j ≤ i alone.
    prefill_flops: what the fast form of this project executes, as FlopCounterMode counts it.
    decode_flops: one more token a sequence, L in all with it, as FlopCounterMode counts it.
    activation_bytes: what training holds between forward and backward, in float32 whatever `itemsize` is.
    state_bytes: what decoding holds of L tokens.
    """

    prefill_flops_square: int
    prefill_flops_causal: int
    prefill_flops: int
    decode_flops: int
    activation_bytes: int
    state_bytes: int


FLOAT = 4
"""Bytes of a float32."""


def square_pairs(length: int) -> int:
    """L²."""
    return length * length


def causal_pairs(length: int) -> int:
    """L(L + 1)/2: each query with itself and the past."""
    return length * (length + 1) // 2


def block_pairs(length: int, block: int) -> int:
    """Pairs that a form visits that takes `block` queries at a time, each block with all keys up to its own end."""
    return sum((min(start + block, length) - start) * min(start + block, length) for start in range(0, length, block))
