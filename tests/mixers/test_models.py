"""Whole models against the reference decoder in float64: logits, gradients, layouts, skips, counts of layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixers.cases import (
    FLOAT64,
    HEADS,
    VARIANTS,
    assert_near,
    build,
    config_of,
    definition,
    each_kind,
    each_length,
    each_pair,
    load,
    random_state,
    rms,
    tokens,
)
from tests.reference import naive, qwen
from tests.reference.cases import pairwise
from tests.reference.layouts import LAYOUTS
from tests.reference.parameters import BUFFERS

pytestmark = pytest.mark.usefixtures("one_thread")
FACTORS: dict[str, tuple[Any, ...]] = {
    "layout": LAYOUTS,
    "variant": tuple(variant for variant in VARIANTS if variant != "standard"),
    "head": tuple(HEADS),
    "kv": (4, 2, 1),
    "tied": (False, True),
}
OTHERS = pairwise(FACTORS) + pairwise({**FACTORS, "layout": ("uniform",), "variant": ("standard",)})


def assert_logits(config: dict[str, Any], length: int, mode: str | None = None) -> None:
    """In evaluation without gradients, where a side stream is computed once, and as in training."""
    model, state = build(config)
    model.skip = mode
    ids = tokens(2, length)
    expected = naive.forward(config, state, ids, mode, definition(config)).logits
    with torch.no_grad():
        assert_near(model.eval()(ids), expected, FLOAT64, "at inference:")
        assert_near(model(ids), expected, FLOAT64, "at inference, again:")
    assert_near(model.train()(ids).detach(), expected, FLOAT64, "in training:")


def assert_gradients(config: dict[str, Any], length: int) -> None:
    """Every tensor's gradient of the loss; of the mean of cos(logits) where there is no next token.

    Relative to that tensor's own RMS, or a thousandth of the largest tensor's: at length 1 queries and keys have none.
    """
    model, state = build(config)
    ids = tokens(2, length)
    expected = naive.gradients(config, state, ids, definition(config))
    model.train()
    (model.loss(ids) if length > 1 else model(ids).cos().mean()).backward()
    unit = 1e-3 * max(rms(gradient) for gradient in expected.values())
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_near(found[name], gradient, FLOAT64, name, unit)


@each_length
@each_kind
def test_logits(variant: str, layout: str, heads: str, length: int) -> None:
    assert_logits(config_of(variant, layout, heads), length)


@each_length
@each_kind
def test_gradients_of_every_parameter(variant: str, layout: str, heads: str, length: int) -> None:
    assert_gradients(config_of(variant, layout, heads), length)


@pytest.mark.parametrize("case", OTHERS, ids=["-".join(map(str, case.values())) for case in OTHERS])
def test_every_layout_with_head_norms_biases_and_tied_embeddings(case: dict[str, Any]) -> None:
    config = config_of(
        case["variant"], case["layout"], num_hidden_layers=4, num_key_value_heads=case["kv"],
        tie_word_embeddings=case["tied"], **HEADS[case["head"]],
    )  # fmt: skip
    assert_logits(config, 33)
    assert_gradients(config, 33)


@pytest.mark.parametrize("mode", ["skip", "skip_mixer"])
@each_pair
def test_skips(variant: str, layout: str, heads: str, mode: str) -> None:
    assert_logits(config_of(variant, layout, heads), 33, mode)


@each_pair
def test_new_weights_leave_nothing_of_the_old_behind(variant: str, layout: str, heads: str) -> None:
    """What inference keeps between calls (a side stream's queries and keys) goes when the weights change."""
    config, ids = config_of(variant, layout, heads), tokens(2, 20)
    model, state = build(config)
    loaded = random_state(config, 9)
    updated = loaded | {name: tensor for name, tensor in state.items() if name not in BUFFERS}

    def expected(weights: dict[str, Tensor]) -> Tensor:
        return naive.forward(config, weights, ids, other=definition(config)).logits

    with torch.no_grad():
        model.eval()(ids)
        load(model, loaded)
        assert_near(model(ids), expected(loaded), FLOAT64, "after loading:")
        for name, parameter in model.named_parameters():
            parameter.copy_(state[name])
        assert_near(model(ids), expected(updated), FLOAT64, "after an update in place:")
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        next(model.parameters()).data.mul_(2.0)
        doubled = updated | {(name := next(iter(dict(model.named_parameters())))): 2.0 * updated[name]}
        assert_near(model(ids), expected(doubled), FLOAT64, "after new tensors:")
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.data.mul_(1.25)
        grown = {name: 1.25 * x if x.is_floating_point() else x for name, x in doubled.items()}
        assert_near(model(ids), expected(grown), FLOAT64, "after an update that raises no version:")


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_standard_is_the_transformers_model(kv_heads: int, qk_norm: bool) -> None:
    config = config_of("standard", num_key_value_heads=kv_heads, qk_norm=qk_norm, attention_bias=not qk_norm)
    model, _ = build(config)
    theirs = qwen.empty(config).double().eval()
    theirs.load_state_dict(model.state_dict(), strict=True)
    qwen.double_precision(theirs, config)
    with torch.no_grad():
        assert_near(model.eval()(tokens(2, 127)), theirs(tokens(2, 127)).logits, FLOAT64)
