"""The printed costs, the words of Tables 5 to 8, and the named differences between printed and ours."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import product

import pytest

from deconattn import mixers
from deconattn.analysis.paper_costs import FIXED, ITEMSIZE, QUANTITIES, Difference, differences, printed
from deconattn.mixers._costs import Costs
from deconattn.mixers._scores import side_positions
from deconattn.mixers._states import paged
from deconattn.mixers._taylor import features, switch
from deconattn.mixers.mlp import inner_width
from deconattn.model import ModelConfig
from deconattn.report.cost_formulas import BEYOND_SWITCH, GROWTH, OUR_GROWTH, OURS, PRINTED, PRINTED_GROWTH
from deconattn.report.names import VARIANTS
from tests.conftest import ROOT, skip_or_fail

SHAPES = [(64, 4, 4), (64, 4, 2), (96, 2, 1), (896, 14, 14)]
SIZES = list(product((1, 2, 8), (2, 31, 64, 128, 257, 1000, 5000)))
EVERY = pytest.mark.parametrize("variant", VARIANTS)


def config_of(variant: str, hidden: int = 64, heads: int = 4, kv_heads: int = 4) -> ModelConfig:
    return ModelConfig(
        vocab_size=1, hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=8192, variant=variant,
    )  # fmt: skip


def ours(config: ModelConfig, batch: int, length: int, itemsize: int = ITEMSIZE) -> Costs:
    return mixers.find(config.variant).costs(config, batch, length, itemsize)


def value(formula: str, config: ModelConfig, batch: int, length: int) -> float:
    """A formula as the tables print it, worked out: `2(B + 1)L²d` → 2*(B+1)*L**2*d."""
    e = config.head_dim
    names = {
        "B": batch, "L": length, "d": config.hidden_size, "h": config.num_attention_heads, "e": e,
        "g": config.kv_heads, "k": config.kv_heads * e, "m": inner_width(config), "F": features(e),
        "P": paged(length), "S": side_positions(config, length), "min": min,
    }  # fmt: skip
    words: list[str] = []
    for word in re.findall(r"min|\d+|\S", formula.replace("²", "^")):
        if words and word not in "+-*/,)^" and words[-1] not in ("(", "min", *"+-*/,"):
            words.append("*")
        words.append(word)
    return eval("".join(words).replace("^", "**2"), {"__builtins__": {}}, names)


@pytest.mark.parametrize(
    ("text", "number"),
    [("6BLdm", 6 * 3 * 5 * 64 * 86), ("2(B + 1)L²d", 2 * 4 * 25 * 64), ("4BgF(e + 1)", 4 * 3 * 4 * 153 * 17),
     ("B min(L, e²)d + Bd²", 3 * 5 * 64 + 3 * 64**2), ("6Bd + 4Bd²/h", 6 * 3 * 64 + 4 * 3 * 1024), ("0", 0)],
)  # fmt: skip
def test_formulas_are_read_as_a_reader_would(text: str, number: int) -> None:
    config = config_of("mlp")
    assert value(text, config, 3, 5) == number


def test_the_printed_words_are_those_of_the_specification() -> None:
    path = ROOT.parent / "shared" / "paper" / "SPEC.md"
    if not path.is_file():
        skip_or_fail(f"the specification is not there: {path}")
    table = path.read_text().split("Costs as the paper prints them")[1].split("They leave out")[0]
    seen = set()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for variant in cells[0].split(", ") if len(cells) == 4 else ():
            if variant in PRINTED:
                seen.add(variant)
                found = tuple(text.replace("(B+1)", "(B + 1)") for text in cells[1:])
                assert found == tuple(PRINTED[variant].values())
    assert seen == set(VARIANTS)


@EVERY
def test_the_printed_words_are_the_printed_numbers(variant: str) -> None:
    for (hidden, heads, kv), (batch, length) in product(SHAPES, SIZES):
        config = config_of(variant, hidden, heads, kv)
        found = printed(variant, batch, length, hidden, heads)
        assert found is not None
        for name, text in PRINTED[variant].items():
            assert getattr(found, name.removeprefix("printed_")) == value(text, config, batch, length), name


@EVERY
def test_our_words_are_our_numbers(variant: str) -> None:
    for (hidden, heads, kv), (batch, length) in product(SHAPES, SIZES):
        config = config_of(variant, hidden, heads, kv)
        costs = ours(config, batch, length)
        beyond = variant == "approximate" and length > switch(config.head_dim)
        for name, text in (OURS[variant] | (BEYOND_SWITCH if beyond else {})).items():
            assert getattr(costs, name.removesuffix("_bf16")) == value(text, config, batch, length), (name, length)


@EVERY
def test_orders_of_growth_are_those_of_the_costs(variant: str) -> None:
    """A cost divided by its order stays within a factor while B, L and d grow, each alone and together."""
    columns = ("prefill_flops_square", "decode_flops", "activation_bytes", "state_bytes")
    for name, text, column in zip(GROWTH, OUR_GROWTH[variant], columns, strict=True):
        ratios = []
        for batch, length, scale in product((1, 64), (2**12, 2**16, 2**20), (1, 8)):
            config = config_of(variant, 64 * scale, 4 * scale, 4 * scale)
            object.__setattr__(config, "max_position_embeddings", 2**20)
            cost = getattr(ours(config, batch, length), column)
            order = value(text, config, batch, length)
            assert (cost == 0) == (order == 0)
            if order:
                ratios.append(cost / order)
        assert not ratios or max(ratios) < 7 * min(ratios), (name, text, min(ratios), max(ratios))


@EVERY
def test_orders_of_the_printed_formulas(variant: str) -> None:
    names = ("printed_prefill_flops", "printed_decode_flops", None, "printed_cache_bytes")
    for name, text in zip(names, PRINTED_GROWTH[variant], strict=True):
        assert (name is None) == (text is None)
        if name is None or text is None:
            continue
        ratios = []
        for batch, length, scale in product((1, 64), (2**12, 2**20), (1, 8)):
            config = config_of(variant, 64 * scale, 4 * scale, 4 * scale)
            exact, order = (value(t, config, batch, length) for t in (PRINTED[variant][name], text))
            ratios += [exact / order] if order else []
        assert not ratios or max(ratios) < 7 * min(ratios)


@EVERY
def test_printed_and_named_differences_add_up_to_ours(variant: str) -> None:
    fields = {"decode_flops": "decode_flops", "state_bytes": "cache_bytes"}
    for (hidden, heads, kv), (batch, length) in product(SHAPES, SIZES):
        config = config_of(variant, hidden, heads, kv)
        paper = printed(variant, batch, length, hidden, heads)
        amounts: dict[str, int] = defaultdict(int)
        for term in differences(config, batch, length):
            assert term.quantity in QUANTITIES and term.amount and term.sentence.endswith(".")
            amounts[term.quantity] += term.amount
        for quantity in QUANTITIES:
            start = getattr(paper, fields.get(quantity, "prefill_flops"))
            assert start + amounts[quantity] == getattr(ours(config, batch, length), quantity), (
                quantity,
                config,
                length,
            )


def named(variant: str, batch: int, length: int, **shape: int) -> dict[tuple[str, str], Difference]:
    return {(t.quantity, t.name): t for t in differences(config_of(variant, **shape), batch, length)}


def test_each_difference_is_what_its_sentence_says() -> None:
    """By hand, B = 2, L = 100, d = 64, 4 heads of 16."""
    b, n, d, h, e = 2, 100, 64, 4, 16
    standard = named("standard", b, n)
    assert {name for _, name in standard} == {"output projection", "causal half", "whole pages"}
    assert standard["prefill_flops_square", "output projection"].amount == 2 * b * n * d * d
    assert standard["decode_flops", "output projection"].amount == 2 * b * d * d
    assert standard["prefill_flops_causal", "causal half"].amount == -4 * b * d * (n * n - n * (n + 1) // 2)
    assert standard["state_bytes", "whole pages"].amount == 2 * 2 * b * (128 - 100) * d
    grouped = named("standard", b, n, kv_heads=2)
    # Two of four key heads: half of W_k and W_v, half of the keys and values.
    assert grouped["decode_flops", "grouped queries"].amount == -2 * 2 * b * d * (d // 2)
    assert grouped["state_bytes", "grouped queries"].amount == -2 * 2 * b * n * (d // 2)
    mlp = named("mlp", b, n)
    assert mlp["decode_flops", "inner width"].amount == 6 * b * d * (86 - d)
    fixed = named("rndembqk", b, n)
    assert fixed["prefill_flops_square", "one side stream"].amount == -2 * 2 * d * d * n * (b - 1)
    assert fixed["decode_flops", "side stream computed once"].amount == -2 * 2 * b * d * d
    assert fixed["decode_flops", "scores of each row"].amount == 2 * n * d * (b - 1)
    assert fixed["state_bytes", "queries of the side stream"].amount == 2 * n * d
    assert fixed["state_bytes", "side stream ahead of the text"].amount == 2 * 2 * d * (128 - 100)
    running = named("nonapproximate", b, n)
    assert running["state_bytes", "float32"].amount == (4 - 2) * b * h * (e + 2)
    assert running["prefill_flops", "chunked scan"].amount > 0
    near, far = named("approximate", b, n), named("approximate", b, 1000)
    assert near["decode_flops", "keys and values"].amount == 4 * b * n * d
    assert near["decode_flops", "linear form"].amount == (6 - 10) * b * d * d
    entries = 1 + e + e * (e + 1) // 2
    assert far["decode_flops", "second-order features"].amount == 4 * b * h * entries * (e + 1)
    assert far["state_bytes", "float32"].amount == 2 * b * h * entries * (e + 1)
    printed_a_head = 2 * e * e + 3 * e
    assert far["state_bytes", "second-order features"].amount == 2 * b * h * (entries * (e + 1) - printed_a_head)
    assert f"{entries:,} different entries at dh = 16" in far["state_bytes", "second-order features"].sentence
    assert set(FIXED) == {v for v in VARIANTS if mixers.find(v).qk_source == "side"}


def test_a_variant_that_the_paper_does_not_have_has_no_printed_costs() -> None:
    assert printed("softplus", 1, 8, 64, 4) is None
    assert differences(config_of("softplus"), 1, 8) == []
