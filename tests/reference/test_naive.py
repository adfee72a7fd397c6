"""The naive reference against outside oracles, so that what judges the package is itself judged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixers.cases import HEADS, SHAPE, tokens
from tests.reference import naive, qwen
from tests.reference.parameters import random_state_dict

SIMPLE = naive.VARIANTS[1:]


def config(**changes: Any) -> dict[str, Any]:
    return SHAPE | {"num_hidden_layers": 4} | changes


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    assert difference < tolerance, f"relative difference {difference:.2e}"


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
    for kv_heads, head, tied in [((1, 2, 4)[(v + i) % 3], [*HEADS][(v + 3 * i) % 4], (v + i) % 4 == 0)]
]


@pytest.mark.parametrize(("variant", "layout", "kv_heads", "head", "tied"), ORACLE_CASES)
def test_every_variant_is_transformers_with_its_mixers_exchanged(
    variant: str, layout: str, kv_heads: int, head: str, tied: bool
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


@pytest.mark.slow  # what it proves is that the tests above can fail
@pytest.mark.parametrize("variant", naive.VARIANTS)
def test_no_tensor_can_be_dropped_unseen(variant: str) -> None:
    """Each tensor has a gradient away from zero, and setting it to its neutral value moves the logits."""
    c = config(variant=variant, layout="even", qk_norm=True, attention_bias=True)
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


def test_loss_is_the_cross_entropy_of_the_next_token() -> None:
    c = config()
    state, ids = random_state_dict(c, 12), tokens(3, 9)
    logits = naive.forward(c, state, ids).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(naive.next_token_loss(logits, ids) - expected) < 1e-14
