"""The costs that the paper prints, and why ours differ, term by term.

The formulas are those of docs/method.md, "Costs as the paper prints them" (arXiv:2510.11602, Tables 5 to 8): matrix products
alone, for B sequences of L tokens, d hidden, h heads; cache bytes at 2 bytes a number. Activation memory is not among
them. The printed value and the differences of a quantity add up to ours, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from deconattn.config import ModelConfig
from deconattn.costs import mixer_costs
from deconattn.mixers.approximate import features, switch
from deconattn.mixers.cache import paged, side_positions
from deconattn.mixers.mlp import inner_width

ITEMSIZE = 2
"""Bytes a number in the printed cache sizes."""
FIXED = ("rndembqk", "fixedseqqk")
SENTENCES = {
    "output projection": "The printed count leaves the output projection out.",
    "grouped queries": "Several query heads share a key and value head; the printed count has one for each.",
    "one side stream": "The printed count projects queries and keys for every sequence; they are those of the one side "
    "stream.",
    "linear form": "The printed counts take 8BLd² of a prefill and 4Bd² of a step for the sums of the linear form; our "
    "prefill does not use it, and what our step reads and extends is counted as it is.",
    "pairs of positions": "A prefill takes the quadratic form, block by block: up to some thousand tokens it is the "
    "faster one.",
    "inner width": "The printed count has three matrices of d × d; ours are of d × m, with m solved for equal parameters "
    "(near 4d/3).",
    "causal half": "A causal model needs the pairs j ≤ i alone, L(L + 1)/2 of the printed L².",
    "chunked scan": "The running sums are taken as products within chunks, which a count of the equation does not have.",
    "blocks of queries": "Blocks of queries stop at their own end: of the upper half of the square only a block's is "
    "computed.",
    "side stream computed once": "Queries and keys of the side stream are computed once at inference, before the first "
    "token.",
    "scores of each row": "The printed count takes one row of scores for the batch; sequences may stand at different "
    "positions, and each takes its own.",
    "keys and values": "Up to {most:,} tokens keys and values are read faster than the sums, and kept in their place.",
    "second-order features": "φ has 1 + dh + dh(dh + 1)/2 = {features:,} different entries at dh = {size}, and the state "
    "dh + 1 times as many numbers a head; the printed count has 2dh² + 3dh.",
    "whole pages": "Keys and values grow by pages of 64 positions, so that adding a token copies nothing.",
    "float32": "What is summed over the past is held in 4 bytes a number, whatever the model's precision.",
    "queries of the side stream": "The side stream's queries are kept beside its keys: the next position reads its own.",
    "side stream ahead of the text": "The side stream is computed for a power of two of positions, so that a longer text "
    "rarely starts it again.",
}
"""Name of a difference → its reason."""


@dataclass(frozen=True)
class Printed:
    """The printed costs of one layer's mixer: FLOPs of a prefill, FLOPs of one more token a sequence, bytes of the cache."""

    prefill_flops: int
    decode_flops: int
    cache_bytes: int


@dataclass(frozen=True)
class Difference:
    """Why `quantity`, a field of `Costs`, differs from the printed value: `amount` must be added to the latter."""

    quantity: str
    name: str
    sentence: str
    amount: int


def printed(variant: str, batch: int, length: int, hidden: int, heads: int) -> Printed | None:
    """The printed costs; None for a variant that the paper does not have."""
    b, n, d, h = batch, length, hidden, heads
    prefill, step = 6 * b * n * d * d, 6 * b * d * d
    if variant in ("standard", "staticembqk"):
        return Printed(prefill + 4 * b * n * n * d, step + 4 * b * n * d, 4 * b * n * d)
    if variant == "mlp":
        return Printed(prefill, step, 0)
    if variant == "approximate":
        return Printed(14 * b * n * d * d, 10 * b * d * d, 6 * b * d + 4 * b * d * d // h)
    if variant == "nonapproximate":
        return Printed(prefill, step, 2 * b * d + 4 * b * h)
    if variant in FIXED:
        return Printed(prefill + 2 * (b + 1) * n * n * d, step + 2 * (b + 1) * n * d, 2 * (b + 1) * n * d)
    return None


def differences(config: ModelConfig, batch: int, length: int) -> list[Difference]:
    """All differences between `Costs` at `ITEMSIZE` and the printed values; none for a variant that the paper does not have."""
    known = printed(config.variant, batch, length, config.hidden_size, config.num_attention_heads)
    if known is None:
        return []
    costs = mixer_costs(config, batch, length)
    square = _prefill(config, batch, length)
    fast_form = "chunked scan" if config.variant == "nonapproximate" else "blocks of queries"
    terms = {
        "prefill_flops_square": square,
        "prefill_flops_causal": {**square, "causal half": costs.prefill_flops_causal - costs.prefill_flops_square},
        "prefill_flops": {**square, fast_form: costs.prefill_flops - costs.prefill_flops_square},
        "decode_flops": _decode(config, batch, length),
        "state_bytes": _state(config, batch, length, known.cache_bytes),
    }
    size = config.head_dim
    numbers = {"most": switch(size), "features": features(size), "size": size}
    return [
        Difference(quantity, name, SENTENCES[name].format(**numbers), amount)
        for quantity, amounts in terms.items()
        for name, amount in amounts.items()
        if amount
    ]


def _prefill(config: ModelConfig, b: int, n: int) -> dict[str, int]:
    """Name → FLOPs of a prefill of n tokens, all pairs counted."""
    d, fixed = config.hidden_size, config.variant in FIXED
    if config.variant == "mlp":
        return {"inner width": 6 * b * n * d * (inner_width(config) - d)}
    narrower = d - _kv_size(config)
    terms = {
        "output projection": 2 * b * n * d * d,
        "grouped queries": -2 * d * narrower * n * (b + (1 if fixed else b)),
    }
    if fixed:
        terms["one side stream"] = 4 * (1 - b) * n * d * d
    if config.variant == "approximate":
        terms |= {"linear form": -8 * b * n * d * d, "pairs of positions": 4 * b * n * n * d}
    return terms


def _decode(config: ModelConfig, b: int, n: int) -> dict[str, int]:
    """Name → FLOPs of a step to n tokens."""
    d, fixed = config.hidden_size, config.variant in FIXED
    if config.variant == "mlp":
        return _prefill(config, b, 1)
    narrower = d - _kv_size(config)
    terms = {"output projection": 2 * b * d * d, "grouped queries": -2 * b * d * narrower * (1 if fixed else 2)}
    if fixed:
        terms |= {"side stream computed once": -4 * b * d * d, "scores of each row": 2 * (b - 1) * n * d}
    if config.variant == "approximate":
        terms["linear form"] = -4 * b * d * d
        if n <= switch(config.head_dim):
            terms["keys and values"] = 4 * b * n * d
        else:
            heads = config.kv_heads + config.num_attention_heads
            terms["second-order features"] = 2 * b * heads * _sums(config)
    return terms


def _state(config: ModelConfig, b: int, n: int, printed_bytes: int) -> dict[str, int]:
    """Name → bytes that decoding holds of n tokens."""
    d, kv_size = config.hidden_size, _kv_size(config)
    spare = ITEMSIZE * b * (paged(n) - n) * kv_size
    if config.variant == "mlp":
        return {}
    if config.variant == "nonapproximate":
        return {"float32": 2 * b * (d + 2 * config.num_attention_heads)}
    if config.variant == "approximate" and n <= switch(config.head_dim):
        return {"keys and values": 4 * b * n * kv_size - printed_bytes, "whole pages": 2 * spare}
    if config.variant == "approximate":
        numbers = b * config.kv_heads * _sums(config)
        return {"second-order features": ITEMSIZE * numbers - printed_bytes, "float32": 2 * numbers}
    if config.variant in FIXED:
        ahead = side_positions(n, config.max_position_embeddings) - n
        return {
            "grouped queries": -2 * (b + 1) * n * (d - kv_size),
            "whole pages": spare,
            "queries of the side stream": 2 * n * d,
            "side stream ahead of the text": 2 * ahead * (d + kv_size),
        }
    return {"grouped queries": -4 * b * n * (d - kv_size), "whole pages": 2 * spare}


def _kv_size(config: ModelConfig) -> int:
    return config.kv_heads * config.head_dim


def _sums(config: ModelConfig) -> int:
    """Numbers of Σ φ(k)·[v, 1] for one head."""
    return features(config.head_dim) * (config.head_dim + 1)
