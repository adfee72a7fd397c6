"""What a mixer costs, in one convention, and the formulas that variants share.

A multiply-add is 2 FLOPs, and only matrix products are counted: projections, scores, and sums over positions. Softmax, RoPE,
gates and norms are of lower order and left out, as PyTorch's counters do. Products over pairs of positions are given in both
usual counts: all L² of the square, and the L(L + 1)/2 that a causal model needs. Both are the definition's, A materialised and
multiplied with the values, however the fast form goes about it; a running sum of one number a key has no pairs to count.
"""

from __future__ import annotations

from dataclasses import dataclass

from deconattn.config import ModelConfig
from deconattn.mixers.cache import paged, side_positions

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Flops:
    """FLOPs of one layer's mixer for a batch of B sequences of L tokens. With a side stream, B counts the rows that are mixed.

    prefill_square: forward over the L tokens, all L² pairs counted.
    prefill_causal: the same, pairs j ≤ i alone.
    prefill: what the fast form of this project executes, as FlopCounterMode counts it.
    decode: one more token a sequence, L in all with it, as FlopCounterMode counts it.
    """

    prefill_square: int
    prefill_causal: int
    prefill: int
    decode: int


def square_pairs(length: int) -> int:
    """L²."""
    return length * length


def causal_pairs(length: int) -> int:
    """L(L + 1)/2: each query with itself and the past."""
    return length * (length + 1) // 2


def block_pairs(length: int, block: int) -> int:
    """Pairs in a form that takes `block` queries at a time, each block with all keys up to its own end."""
    ends = [min(start + block, length) for start in range(0, length, block)]
    return sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False))


def projection_flops(config: ModelConfig, qk_tokens: int, vo_tokens: int) -> int:
    """q and k of `qk_tokens`, v and o of `vo_tokens`: 2·(d² + d·kv) each a token."""
    d = config.hidden_size
    return 2 * d * (d + config.kv_size) * (qk_tokens + vo_tokens)


def pair_flops(config: ModelConfig, batch: int, length: int, visited: int, side: bool = False) -> Flops:
    """Of a mixer that weighs pairs of positions, `visited` of them in its fast form: 2·d a pair for scores, 2·d for values.

    With a side stream (`side`) a prefill takes queries, keys and scores once for the batch. In decoding rows may stand at
    different positions, and each takes its own scores, of queries and keys that were computed before.
    """
    d, maps = config.hidden_size, 1 if side else batch
    projections = projection_flops(config, maps * length, batch * length)
    a_pair = 2 * d * (maps + batch)
    return Flops(
        prefill_square=projections + a_pair * square_pairs(length),
        prefill_causal=projections + a_pair * causal_pairs(length),
        prefill=projections + a_pair * visited,
        decode=projection_flops(config, 0 if side else batch, batch) + 4 * d * batch * length,
    )


def kv_bytes(config: ModelConfig, batch: int, length: int, itemsize: int, side: bool = False) -> int:
    """Keys and values of whole pages of positions; with a side stream values, and once the stream's own queries and keys."""
    held = batch * paged(length) * config.kv_size * (1 if side else 2)
    if side:
        held += side_positions(length, config.max_position_embeddings) * (config.hidden_size + config.kv_size)
    return held * itemsize
