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
    each_kind,
    each_length,
    each_pair,
    load,
    random_state,
    reference,
    reference_gradients,
    rms,
    tokens,
)
from tests.reference.layouts import LAYOUTS
from tests.reference.parameters import BUFFERS

RELAXED = [variant for variant in VARIANTS if variant != "standard"]


def other(turn: int, layout: str, variant: str) -> dict[str, Any]:
    """The kinds of heads take turns, so that any two of all these values meet."""
    return {
        "layout": layout,
        "variant": variant,
        "head": [*HEADS][turn % 4],
        "kv": (4, 2, 1)[turn % 3],
        "tied": turn % 5 < 2,
    }


OTHERS = [other(i + j, LAYOUTS[i], RELAXED[j]) for i in range(len(LAYOUTS)) for j in range(len(RELAXED))]
OTHERS += [other(i, "uniform", "standard") for i in range(12)]


def assert_logits(config: dict[str, Any], length: int, mode: str | None = None) -> None:
    """In evaluation without gradients, where a side stream is computed once, and as in training."""
    model, state = build(config)
    model.skip = mode
    ids = tokens(2, length)
    expected = reference(config, state, ids, mode).logits
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
    expected = reference_gradients(config, state, ids)
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


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id="-".join(map(str, case.values())), marks=() if number % 4 == 0 else pytest.mark.slow)
        for number, case in enumerate(OTHERS)
    ],
)
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
        return reference(config, weights, ids).logits

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
        assert_near(model.eval()(ids), expected(grown), FLOAT64, "after an update that raises no version, and eval():")
        rounded = {name: x.float().double() if x.is_floating_point() else x for name, x in grown.items()}
        assert_near(model.float().double()(ids), expected(rounded), FLOAT64, "after a cast:")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model.loss(ids).backward()
    optimizer.step()
    stepped = {name: x.clone() for name, x in model.state_dict().items()}
    with torch.no_grad():
        assert_near(model(ids), expected(stepped), FLOAT64, "after an optimiser's step:")
