"""The costs that the paper prints, and why ours differ, term by term.

The formulas are those of the table "Costs as the paper prints them" in SPEC §8 (arXiv:2510.11602, Tables 5 to 8): matrix products
alone, for B sequences of L tokens, d hidden, h heads; cache bytes at 2 bytes a number. What the paper says of activation memory
is not among them. The printed value and the differences of a quantity add up to ours, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deconattn import mixers
from deconattn.mixers._contract import QKVMixer
from deconattn.mixers._costs import causal_pairs, square_pairs
from deconattn.mixers._scores import ScoreMixer, side_positions
from deconattn.mixers._states import paged
from deconattn.mixers._taylor import features, switch
from deconattn.mixers.mlp import inner_width
from deconattn.model import ModelConfig

ITEMSIZE = 2
"""Bytes a number in the printed cache sizes."""
FIXED = ("rndembqk", "fixedseqqk")
PREFILL = ("prefill_flops_square", "prefill_flops_causal", "prefill_flops")
QUANTITIES = (*PREFILL, "decode_flops", "state_bytes")


@dataclass(frozen=True)
class Printed:
    """The printed costs of one layer's mixer: FLOPs of a prefill, FLOPs of one more token a sequence, bytes of the cache."""

    prefill_flops: int
    decode_flops: int
    cache_bytes: int


@dataclass(frozen=True)
class Difference:
    """Why `quantity`, a field of `Costs`, is not what is printed: `amount` is to be added to the printed value."""

    quantity: str
    name: str
    sentence: str
    amount: int


def printed(variant: str, batch: int, length: int, hidden: int, heads: int) -> Printed | None:
    """The printed costs (SPEC §8); None for a variant that the paper does not have."""
    b, n, d, h = batch, length, hidden, heads
    projections, pairs = 6 * b * n * d * d, 4 * b * n * n * d
    a_token = 6 * b * d * d
    if variant in ("standard", "staticembqk"):
        return Printed(pairs + projections, a_token + 4 * b * n * d, 4 * b * n * d)
    if variant == "mlp":
        return Printed(projections, a_token, 0)
    if variant == "approximate":
        return Printed(14 * b * n * d * d, 10 * b * d * d, 6 * b * d + 4 * b * d * d // h)
    if variant == "nonapproximate":
        return Printed(projections, a_token, 2 * b * d + 4 * b * h)
    if variant in FIXED:
        return Printed(
            2 * n * n * d + 2 * b * n * n * d + projections, 2 * n * d + 2 * b * n * d + a_token, 2 * (b + 1) * n * d
        )
    return None


def differences(config: ModelConfig, batch: int, length: int) -> list[Difference]:
    """All differences between `Costs` of `config.variant` at `ITEMSIZE` and what is printed; none for one's own variants."""
    if printed(config.variant, batch, length, config.hidden_size, config.num_attention_heads) is None:
        return []
    found: list[Difference] = []
    square = list(_prefill(config, batch, length))
    causal, executed = _causal(config, batch, length), _executed(config, batch, length)
    for quantity, terms in (
        ("prefill_flops_square", square),
        ("prefill_flops_causal", [*square, causal]),
        ("prefill_flops", [*square, executed]),
        ("decode_flops", list(_decode(config, batch, length))),
        ("state_bytes", list(_state(config, batch, length))),
    ):
        found += [Difference(quantity, *term) for term in terms if term[2]]
    return found


Term = tuple[str, str, int]
OUTPUT = ("output projection", "The printed count leaves the output projection out.")
GROUPED = ("grouped queries", "Several query heads share a key and value head; the printed count has one for each.")
PAGES = ("whole pages", "Keys and values grow by pages of 64 positions, so that adding a token copies nothing.")


def _prefill(config: ModelConfig, batch: int, length: int) -> Iterator[Term]:
    d, tokens = config.hidden_size, batch * length
    if config.variant == "mlp":
        yield _width(config, tokens)
        return
    yield *OUTPUT, 2 * tokens * d * d
    maps = 1 if config.variant in FIXED else batch
    yield *GROUPED, -2 * d * _missing(config) * (maps * length + tokens)
    if config.variant in FIXED:
        yield (
            "one side stream",
            "The printed count projects queries and keys for every sequence; they are those of the one side stream.",
            4 * (1 - batch) * length * d * d,
        )
    if config.variant == "approximate":
        yield (
            "linear form",
            "The printed 14BLd² takes 8BLd² for the sums of the linear form, which is not what a prefill runs.",
            -8 * tokens * d * d,
        )
        yield (
            "pairs of positions",
            "A prefill takes the quadratic form, block by block: up to some thousand tokens it is the faster one.",
            4 * batch * square_pairs(length) * d,
        )


def _causal(config: ModelConfig, batch: int, length: int) -> Term:
    pairs = causal_pairs(length) - square_pairs(length)
    sentence = "A causal model needs the pairs j ≤ i alone, L(L + 1)/2 of the printed L²."
    return "causal half", sentence, _a_pair(config, batch) * pairs


def _executed(config: ModelConfig, batch: int, length: int) -> Term:
    if config.variant == "nonapproximate":
        costs = mixers.find("nonapproximate").costs(config, batch, length)
        products = costs.prefill_flops - costs.prefill_flops_square
        sentence = "The running sums are taken as products within chunks, which a count of the equation does not have."
        return "chunked scan", sentence, products
    mixer = mixers.find(config.variant)
    pairs = mixer.visited_pairs(length) - square_pairs(length) if issubclass(mixer, ScoreMixer) else 0
    sentence = "Blocks of queries stop at their own end: of the upper half of the square only a block's is computed."
    return "blocks of queries", sentence, _a_pair(config, batch) * pairs


def _decode(config: ModelConfig, batch: int, length: int) -> Iterator[Term]:
    d = config.hidden_size
    if config.variant == "mlp":
        yield _width(config, batch)
        return
    yield *OUTPUT, 2 * batch * d * d
    if config.variant in FIXED:
        yield *GROUPED, -2 * batch * d * _missing(config)
        yield (
            "side stream computed once",
            "Queries and keys of the side stream are computed once at inference, before the first token.",
            -4 * batch * d * d,
        )
        yield (
            "scores of each row",
            "The printed count takes one row of scores for the batch; sequences may stand at different positions, and each "
            "takes its own.",
            2 * (batch - 1) * length * d,
        )
        return
    yield *GROUPED, -4 * batch * d * _missing(config)
    if config.variant != "approximate":
        return
    yield "linear form", "The printed 10Bd² takes 4Bd² for reading and extending the sums.", -4 * batch * d * d
    if length <= switch(config.head_dim):
        yield *_by_keys(config), 4 * batch * length * d
    else:
        heads = config.kv_heads + config.num_attention_heads
        yield *_second_order(config), 2 * batch * heads * _sums(config)


def _state(config: ModelConfig, batch: int, length: int) -> Iterator[Term]:
    d, kv_size = config.hidden_size, config.kv_heads * config.head_dim
    spare = paged(length) - length
    if config.variant == "nonapproximate":
        yield *_float32("The running maximum, total and sum are"), 2 * batch * (d + 2 * config.num_attention_heads)
    elif config.variant == "approximate":
        known = printed("approximate", batch, length, d, config.num_attention_heads)
        assert known is not None
        if length <= switch(config.head_dim):
            yield *_by_keys(config), 4 * batch * length * kv_size - known.cache_bytes
            yield *PAGES, 4 * batch * spare * kv_size
        else:
            numbers = batch * config.kv_heads * _sums(config)
            yield *_second_order(config), ITEMSIZE * numbers - known.cache_bytes
            yield *_float32("Sums over the past are"), 2 * numbers
    elif config.variant in FIXED:
        yield *GROUPED, -2 * (batch + 1) * length * _missing(config)
        yield *PAGES, 2 * batch * spare * kv_size
        sentence = "The side stream's queries are kept beside its keys: the next position reads its own."
        yield "queries of the side stream", sentence, 2 * length * d
        more = side_positions(config, length) - length
        sentence = (
            "The side stream is computed for a power of two of positions, so that a longer text rarely starts it again."
        )
        yield "side stream ahead of the text", sentence, 2 * more * (d + kv_size)
    elif config.variant != "mlp":
        yield *GROUPED, -4 * batch * length * _missing(config)
        yield *PAGES, 4 * batch * spare * kv_size


def _missing(config: ModelConfig) -> int:
    """By how much the keys of all heads are narrower than d."""
    return config.hidden_size - config.kv_heads * config.head_dim


def _a_pair(config: ModelConfig, batch: int) -> int:
    """FLOPs of our quadratic forms for each pair of positions."""
    mixer = mixers.find(config.variant)
    if not issubclass(mixer, QKVMixer) or config.variant == "nonapproximate":
        return 0
    return 2 * config.hidden_size * ((1 if config.variant in FIXED else batch) + batch)


def _sums(config: ModelConfig) -> int:
    """Numbers of Σ φ(k)·[v, 1] for one head."""
    return features(config.head_dim) * (config.head_dim + 1)


def _width(config: ModelConfig, tokens: int) -> Term:
    sentence = "The printed count has three matrices of d × d; ours are of d × m, with m solved for equal parameters (near 4d/3)."
    return "inner width", sentence, 6 * tokens * config.hidden_size * (inner_width(config) - config.hidden_size)


def _by_keys(config: ModelConfig) -> tuple[str, str]:
    most = switch(config.head_dim)
    return (
        "keys and values",
        f"Up to {most:,} tokens keys and values are read faster than the sums, and kept in their place.",
    )


def _second_order(config: ModelConfig) -> tuple[str, str]:
    size = config.head_dim
    return (
        "second-order features",
        f"φ has 1 + dh + dh(dh + 1)/2 = {features(size):,} different entries at dh = {size}, and the state dh + 1 times as many "
        "numbers a head; the printed count has 2dh² + 3dh.",
    )


def _float32(what: str) -> tuple[str, str]:
    return "float32", f"{what} held in 4 bytes a number whatever the model's precision."
