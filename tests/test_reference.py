"""The naive reference against outside oracles, so that what judges the package is itself judged."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference import based, naive, qwen
from tests.reference.cases import pairwise
from tests.reference.layouts import LAYOUTS, standard_layers
from tests.reference.parameters import attention_size, mixer_width, parameter_shapes, random_state_dict

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 53,
    "max_position_embeddings": 40,
    "rope_theta": 1000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
SIMPLE = naive.VARIANTS[1:]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tensors this small only wait for each other on two threads, for minutes where the machine is busy."""
    torch.set_num_threads(1)


def config(**changes: Any) -> dict[str, Any]:
    return SHAPE | changes


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    assert difference < tolerance, f"relative difference {difference:.2e}"


def test_layouts_are_the_published_ones_at_24_layers() -> None:
    published = {
        "uniform": [],
        "even": [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24],
        "odd": [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23],
        "top": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        "middle": [1, 2, 3, 4, 5, 6, 19, 20, 21, 22, 23, 24],
        "bottom": [13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24],
        "quarter": [4, 8, 12, 16, 20, 24],
        "first": [1],
        "last": [24],
        "bilateral": [1, 24],
    }
    assert {layout: sorted(standard_layers(layout, 24)) for layout in LAYOUTS} == published


def test_layouts_round_down() -> None:
    assert standard_layers("top", 7) == {1, 2, 3}
    assert standard_layers("bottom", 7) == {4, 5, 6, 7}
    assert standard_layers("middle", 7) == {1, 7}
    assert standard_layers("middle", 3) == set()
    assert standard_layers("bilateral", 1) == {1}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_standard_is_the_unchanged_transformers_model(kv_heads: int, qk_norm: bool, tied: bool) -> None:
    """Its norms and rotation are float32 inside, which allows 1e-6; in double precision it is 1e-10."""
    c = config(num_key_value_heads=kv_heads, qk_norm=qk_norm, tie_word_embeddings=tied)
    state, ids = random_state_dict(c, 1), tokens(2, 40)
    expected = naive.forward(c, state, ids).logits
    model = qwen.plain(c, state)
    with torch.no_grad():
        assert_close(model(ids).logits, expected, 1e-6)
        qwen.double_precision(model, c)
        assert_close(model(ids).logits, expected, 1e-10)


ORACLE_CASES = [
    (variant, layout, kv_heads, head, tied)
    for v, variant in enumerate(SIMPLE)
    for i, layout in enumerate(("uniform", "even", "odd", "top", "bilateral", "first"))
    for kv_heads, head, tied in [((1, 2, 4)[(v + i) % 3], (v + 3 * i) % 4, (v + i) % 4 == 0)]
]
HEADS = (
    {"qk_norm": False, "attention_bias": True},
    {"qk_norm": True, "attention_bias": False},
    {"qk_norm": True, "attention_bias": True},
    {"qk_norm": False, "attention_bias": False},
)


@pytest.mark.parametrize(("variant", "layout", "kv_heads", "head", "tied"), ORACLE_CASES)
def test_every_variant_is_transformers_with_its_mixers_exchanged(
    variant: str, layout: str, kv_heads: int, head: int, tied: bool
) -> None:
    c = config(variant=variant, layout=layout, num_key_value_heads=kv_heads, tie_word_embeddings=tied, **HEADS[head])
    state, ids = random_state_dict(c, 2), tokens(2, 17)
    model, logits = qwen.exchanged(c, state)
    trace = naive.forward(c, state, ids)
    assert_close(trace.logits, logits(ids), 1e-10)
    for layer, found in zip(model.model.layers, trace.maps, strict=True):
        if found is None:
            assert variant == "mlp"
        else:
            assert_close(found, layer.self_attn.seen[-2:], 1e-10)

    torch.nn.functional.cross_entropy(logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    gradients = naive.gradients(c, state, ids)
    assert gradients.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values() if g is not None)
    for name, gradient in gradients.items():
        reference = expected[name]
        if reference is None:
            assert not gradient.any(), name
            continue
        assert (gradient - reference).abs().max() < 1e-10 * largest, name


@pytest.mark.parametrize("mode", ["skip", "skip_mixer"])
@pytest.mark.parametrize("variant", SIMPLE)
def test_skips_are_transformers_with_layers_or_mixers_taken_out(variant: str, mode: str) -> None:
    for layout in ("even", "top", "first"):
        c = config(variant=variant, layout=layout)
        state, ids = random_state_dict(c, 3), tokens(2, 17)
        _, logits = qwen.exchanged(c, state, mode)
        assert_close(naive.forward(c, state, ids, mode).logits, logits(ids), 1e-10)


@pytest.mark.parametrize("layout", ["uniform", "even", "bottom"])
@pytest.mark.parametrize("variant", naive.VARIANTS)
def test_no_tensor_can_be_dropped_unseen(variant: str, layout: str) -> None:
    """Each tensor has a gradient away from zero, and setting it to its neutral value moves the logits."""
    c = config(variant=variant, layout=layout, qk_norm=True, attention_bias=True)
    state, ids = random_state_dict(c, 4), tokens(2, 12)
    before = naive.forward(c, state, ids).logits
    for name, gradient in naive.gradients(c, state, ids).items():
        assert gradient.abs().max() > 1e-5, name
        neutral = torch.ones_like(gradient) if "norm" in name else torch.zeros_like(gradient)
        after = naive.forward(c, state | {name: neutral}, ids).logits
        assert (after - before).abs().max() > 1e-3, name


def test_a_text_that_is_its_own_side_stream_gets_standard_attention() -> None:
    for layout in ("uniform", "even"):
        c = config(variant="fixedseqqk", layout=layout, qk_norm=True, num_key_value_heads=2)
        state = random_state_dict(c, 5)
        ids = state["model.side_input_ids"][None, :30]
        expected = naive.forward(c | {"variant": "standard"}, state, ids).logits
        assert_close(naive.forward(c, state, ids).logits, expected, 1e-12)


def test_random_and_text_side_streams_agree_on_equal_vectors() -> None:
    c = config(variant="fixedseqqk", layout="even")
    state, ids = random_state_dict(c, 6), tokens(2, 20)
    vectors = state["model.embed_tokens.weight"][state["model.side_input_ids"]]
    expected = naive.forward(c, state, ids)
    found = naive.forward(c | {"variant": "rndembqk"}, state | {"model.side_embeddings": vectors}, ids)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.maps[0][0], found.maps[0][1]), "a simple layer has one map for the whole batch"
    assert not torch.equal(found.maps[1][0], found.maps[1][1]), "a standard layer has one map a sequence"


def test_one_layer_of_static_embeddings_is_standard() -> None:
    c = config(variant="staticembqk", layout="uniform", num_hidden_layers=1)
    state, ids = random_state_dict(c, 7), tokens(2, 20)
    expected = naive.forward(c | {"variant": "standard"}, state, ids).logits
    assert torch.equal(naive.forward(c, state, ids).logits, expected)


def test_approximate_is_the_reference_of_based() -> None:
    random = torch.Generator().manual_seed(8)
    query, key, value = torch.randn((3, 50, 16), generator=random, dtype=torch.float64).unbind()
    found = naive.head_map("approximate", naive.head_scores("approximate", query, key, 1000.0), 16) @ value
    rotated = [naive.rotate(x, 1000.0)[None, None] for x in (query, key)]
    assert_close(found, based.attention(*rotated, value[None, None])[0, 0], 1e-13)


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_nonapproximate_is_a_softmax_over_one_score_a_key(size: float) -> None:
    random = torch.Generator().manual_seed(9)
    query, key = torch.randn((2, 60, 8), generator=random, dtype=torch.float64).unbind()
    key = key * size
    rows = zip(query.tolist(), key.tolist(), strict=True)
    products = [[q / (1 + math.exp(-q)) * k for q, k in zip(*row, strict=True)] for row in rows]
    score = torch.tensor([math.fsum(row) / math.sqrt(8) for row in products], dtype=torch.float64)
    expected = torch.zeros(60, 60, dtype=torch.float64)
    for i in range(60):
        expected[i, : i + 1] = torch.softmax(score[: i + 1], dim=0)
    scores = naive.head_scores("nonapproximate", query, key, 1000.0)
    assert scores.abs().max() > 0.9 * size
    # At scores of 10³ an error of one unit in the last place of u is 1e-13, and A inherits it.
    assert (naive.head_map("nonapproximate", scores, 8) - expected).abs().max() < 1e-15 * max(100.0, 10 * size)


@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("variant", naive.VARIANTS)
def test_maps_are_causal_distributions(variant: str, layout: str) -> None:
    c = config(variant=variant, layout=layout, num_key_value_heads=2)
    maps = naive.forward(c, random_state_dict(c, 10), tokens(2, 23)).maps
    kept = set(range(1, 5)) if variant == "standard" else standard_layers(layout, 4)
    for n, a in enumerate(maps, start=1):
        assert (a is None) == (variant == "mlp" and n not in kept)
        if a is not None:
            assert a.shape == (2, 4, 23, 23)
            assert (a >= 0).all() and not a.triu(1).any()
            assert (a.sum(-1) - 1).abs().max() < 1e-14
            last = {tuple(row.tolist()) for row in a[0, :, -1]}
            assert len(last) == 4, "every query head has a map of its own"


@pytest.mark.parametrize("mode", [None, "skip", "skip_mixer"])
@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("variant", naive.VARIANTS)
def test_the_future_changes_nothing_and_the_past_does(variant: str, layout: str, mode: str | None) -> None:
    c = config(variant=variant, layout=layout)
    state, ids = random_state_dict(c, 11), tokens(1, 20)
    other = ids.clone()
    other[:, 11] = (other[:, 11] + 1) % c["vocab_size"]
    before, after = (naive.forward(c, state, x, mode).logits for x in (ids, other))
    # Matrix products of the same shape are summed in the same order, so this is equality of bits.
    assert torch.equal(before[:, :11], after[:, :11])
    assert (before[:, 11] - after[:, 11]).abs().max() > 1e-3
    mixes = variant == "standard" or layout == "even" or (variant != "mlp" and mode is None)
    assert bool((before[:, 12:] != after[:, 12:]).any()) == mixes


def test_loss_is_the_cross_entropy_of_the_next_token() -> None:
    c = config()
    state, ids = random_state_dict(c, 12), tokens(3, 9)
    logits = naive.forward(c, state, ids).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(naive.loss(c, state, ids) - expected) < 1e-14


def test_pairwise_cases_hold_every_pair() -> None:
    factors = {"a": range(4), "b": (True, False), "c": range(3), "d": range(5)}
    cases = pairwise(factors)
    for first, second in combinations(factors, 2):
        met = {(case[first], case[second]) for case in cases}
        assert len(met) == len(factors[first]) * len(factors[second])
    assert len(cases) < 40, "far fewer than the 120 of the full product"


def test_parameter_counts() -> None:
    """4d² + 3d for multi-head attention with bias; one total for all variants but `mlp`; the named sizes."""
    assert attention_size(config()) == 4 * 32**2 + 3 * 32
    assert abs(3 * 32 * mixer_width(config()) - (4 * 32**2 + 3 * 32)) <= 3 * 32 / 2

    def total(c: dict[str, Any]) -> int:
        return sum(torch.Size(shape).numel() for shape in parameter_shapes(c).values())

    others = [variant for variant in naive.VARIANTS if variant != "mlp"]
    assert len({total(config(variant=v, layout=layout)) for v in others for layout in LAYOUTS}) == 1
    fields = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    small = dict(zip(fields, (512, 2048, 6, 8, 50304), strict=True))
    large = dict(zip(fields, (896, 4864, 24, 14, 50304), strict=True))
    assert round(total(small) / 1e6, 1) == 76.7
    assert round(total(large) / 1e6) == 481
    assert round(total(large | {"tie_word_embeddings": True}) / 1e6) == 436
    assert abs(total(small | {"variant": "mlp"}) / total(small) - 1) < 1e-3
