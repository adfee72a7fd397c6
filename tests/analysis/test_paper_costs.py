"""The printed costs, the words of Tables 5 to 8, and the named differences between printed and ours."""

from __future__ import annotations

import re
from itertools import product

import pytest

from deconattn import mixers
from deconattn.analysis.paper_costs import FIXED, ITEMSIZE, SENTENCES, Difference, differences, printed
from deconattn.config import ModelConfig
from deconattn.costs import mixer_costs
from deconattn.mixers.approximate import features, switch
from deconattn.mixers.cache import paged, side_positions
from deconattn.mixers.mlp import inner_width
from deconattn.report.cost_formulas import BEYOND_SWITCH, OUR_GROWTH, OURS, PRINTED, PRINTED_GROWTH
from deconattn.report.names import VARIANTS
from tests.conftest import ROOT, skip_or_fail

SHAPES = [(64, 4, 4), (64, 4, 2), (96, 2, 1), (896, 14, 14)]
SIZES = list(product((1, 2, 8), (2, 31, 64, 128, 257, 1000, 5000)))
PRINTED_FOR = {
    "prefill_flops_square": "prefill_flops",
    "prefill_flops_causal": "prefill_flops",
    "prefill_flops": "prefill_flops",
    "decode_flops": "decode_flops",
    "state_bytes": "cache_bytes",
}
"""A quantity of ours → the printed one beside it."""
EVERY = pytest.mark.parametrize("variant", VARIANTS)


def config_of(variant: str, hidden: int = 64, heads: int = 4, kv_heads: int = 4, longest: int = 8192) -> ModelConfig:
    return ModelConfig(
        vocab_size=1, hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=longest, variant=variant,
    )  # fmt: skip


def value(formula: str, config: ModelConfig, batch: int, length: int) -> float:
    """A formula as the tables print it, worked out: `2(B + 1)L²d` → 2*(B+1)*L**2*d."""
    e = config.head_dim
    names = {
        "B": batch, "L": length, "d": config.hidden_size, "h": config.num_attention_heads, "e": e,
        "g": config.kv_heads, "k": config.kv_heads * e, "m": inner_width(config), "F": features(e),
        "P": paged(length), "S": side_positions(length, config.max_position_embeddings), "min": min,
    }  # fmt: skip
    words: list[str] = []
    for word in re.findall(r"min|\d+|\S", formula.replace("²", "^")):
        if words and word not in "+-*/,)^" and words[-1] not in ("(", "min", *"+-*/,"):
            words.append("*")
        words.append(word)
    return eval("".join(words).replace("^", "**2"), {"__builtins__": {}}, names)


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
                assert tuple(x.replace("(B+1)", "(B + 1)") for x in cells[1:]) == tuple(PRINTED[variant].values())
    assert seen == set(VARIANTS)


@EVERY
def test_words_are_numbers_and_printed_plus_differences_are_ours(variant: str) -> None:
    for (hidden, heads, kv), (batch, length) in product(SHAPES, SIZES):
        config = config_of(variant, hidden, heads, kv)
        paper, ours = (
            printed(variant, batch, length, hidden, heads),
            mixer_costs(config, batch, length, ITEMSIZE),
        )
        for name, text in PRINTED[variant].items():
            assert getattr(paper, name.removeprefix("printed_")) == value(text, config, batch, length), name
        beyond = variant == "approximate" and length > switch(config.head_dim)
        for name, text in (OURS[variant] | (BEYOND_SWITCH if beyond else {})).items():
            assert getattr(ours, name.removesuffix("_bf16")) == value(text, config, batch, length), (name, length)
        terms = differences(config, batch, length)
        assert {term.quantity for term in terms} <= set(PRINTED_FOR) and all(term.amount for term in terms)
        for quantity, beside in PRINTED_FOR.items():
            amount = sum(term.amount for term in terms if term.quantity == quantity)
            assert getattr(paper, beside) + amount == getattr(ours, quantity), (quantity, config, length)


@EVERY
def test_orders_of_growth_are_those_of_the_costs(variant: str) -> None:
    """A cost divided by its order stays within a factor while B, L and d grow, each alone and together."""
    columns = ("prefill_flops_square", "decode_flops", "state_bytes")
    sizes = list(product((1, 64), (2**12, 2**16, 2**20), (1, 8)))
    for column, ours, paper in zip(columns, OUR_GROWTH[variant], PRINTED_GROWTH[variant], strict=True):
        ratios: dict[str, list[float]] = {"ours": [], "paper": []}
        for batch, length, scale in sizes:
            config = config_of(variant, 64 * scale, 4 * scale, 4 * scale, longest=2**20)
            known = printed(variant, batch, length, config.hidden_size, config.num_attention_heads)
            exact = {"ours": getattr(mixer_costs(config, batch, length, ITEMSIZE), column)}
            exact["paper"] = getattr(known, PRINTED_FOR[column])
            for whose, text in (("ours", ours), ("paper", paper)):
                order = value(text, config, batch, length)
                assert (exact[whose] == 0) == (order == 0)
                ratios[whose] += [exact[whose] / order] if order else []
        assert all(max(own) < 7 * min(own) for own in ratios.values() if own), (column, ratios)


def named(variant: str, batch: int, length: int, kv_heads: int = 4) -> dict[tuple[str, str], Difference]:
    terms = differences(config_of(variant, kv_heads=kv_heads), batch, length)
    return {(term.quantity, term.name): term for term in terms}


def test_each_difference_is_what_its_sentence_says() -> None:
    """By hand, B = 2, L = 100, d = 64, 4 heads of 16."""
    b, n, d, h, e = 2, 100, 64, 4, 16
    entries, printed_a_head = 1 + e + e * (e + 1) // 2, 2 * e * e + 3 * e
    near, far = named("approximate", b, n), named("approximate", b, 1000)
    grouped = named("standard", b, n, kv_heads=2)  # half of W_k and W_v, half of the keys and values
    by_hand = {
        "standard": {
            ("prefill_flops_square", "output projection"): 2 * b * n * d * d,
            ("decode_flops", "output projection"): 2 * b * d * d,
            ("prefill_flops_causal", "causal half"): -4 * b * d * (n * n - n * (n + 1) // 2),
            ("state_bytes", "whole pages"): 2 * 2 * b * (128 - n) * d,
        },
        "mlp": {("decode_flops", "inner width"): 6 * b * d * (86 - d)},
        "rndembqk": {
            ("prefill_flops_square", "one side stream"): -2 * 2 * d * d * n * (b - 1),
            ("decode_flops", "side stream computed once"): -2 * 2 * b * d * d,
            ("decode_flops", "scores of each row"): 2 * n * d * (b - 1),
            ("state_bytes", "queries of the side stream"): 2 * n * d,
            ("state_bytes", "side stream ahead of the text"): 2 * 2 * d * (128 - n),
        },
        "nonapproximate": {("state_bytes", "float32"): (4 - 2) * b * h * (e + 2)},
    }
    for variant, amounts in by_hand.items():
        found = named(variant, b, n)
        assert {key: found[key].amount for key in amounts} == amounts
    assert {name for _, name in named("standard", b, n)} == {"output projection", "causal half", "whole pages"}
    assert named("nonapproximate", b, n)["prefill_flops", "chunked scan"].amount > 0
    assert grouped["decode_flops", "grouped queries"].amount == -2 * 2 * b * d * (d // 2)
    assert grouped["state_bytes", "grouped queries"].amount == -2 * 2 * b * n * (d // 2)
    assert near["decode_flops", "keys and values"].amount == 4 * b * n * d
    assert near["decode_flops", "linear form"].amount == (6 - 10) * b * d * d
    assert far["decode_flops", "second-order features"].amount == 4 * b * h * entries * (e + 1)
    assert far["state_bytes", "float32"].amount == 2 * b * h * entries * (e + 1)
    assert far["state_bytes", "second-order features"].amount == 2 * b * h * (entries * (e + 1) - printed_a_head)
    assert f"{entries:,} different entries at dh = 16" in far["state_bytes", "second-order features"].sentence
    assert set(FIXED) == {v for v in VARIANTS if mixers.find(v).qk_source == "side"}
    sizes = product(VARIANTS, (n, 1000), (4, 2))
    assert {name for v, length, kv in sizes for _, name in named(v, b, length, kv)} == set(SENTENCES)


def test_a_variant_that_the_paper_does_not_have_has_no_printed_costs() -> None:
    assert printed("softplus", 1, 8, 64, 4) is None
    assert differences(config_of("softplus"), 1, 8) == []
