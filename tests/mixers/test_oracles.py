"""Other people's code for the same equations."""

from __future__ import annotations

import warnings

import pytest
import torch

from deconattn.mixers.approximate import causal_mask, fused
from tests.mixers.cases import FLOAT32, FLOAT64, assert_near, config_of, mixer_of, normal
from tests.reference import based


@pytest.mark.parametrize("length", [1, 2, 31, 33, 257])
def test_approximate_is_the_reference_of_fla(length: int) -> None:
    """Forward and gradients against the pure-torch form of Based in fla-core."""
    mixer = mixer_of(config_of("approximate"))
    q, k, v, direction = normal(4, 2, 4, length, 8, seed=length).unbind()
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    found, expected = mixer.mix(*inputs), based.attention(*inputs)
    assert_near(found, expected, FLOAT64)
    truths = torch.autograd.grad((expected * direction).sum(), inputs)
    for name, gradient, truth in zip(
        "qkv", torch.autograd.grad((found * direction).sum(), inputs), truths, strict=True
    ):
        assert_near(gradient, truth, FLOAT64, f"gradient of {name}:", unit=1e-3)  # of q and k at length 1 it is 0


@torch.no_grad()
def test_approximate_is_flex_attention_with_its_score_mod() -> None:
    """What runs on a GPU, here in the kernel's eager form, forward alone: on a CPU it has no backward."""
    mixer = mixer_of(config_of("approximate", heads="grouped"))
    q, k, v = normal(1, 4, 33, 16).float(), *normal(2, 1, 2, 33, 16, seed=1).float().unbind()
    with warnings.catch_warnings(action="ignore"):  # that it is not compiled
        found = fused(q, k, v)
    assert_near(found, mixer.mix(q, k, v), FLOAT32)
    assert causal_mask(33, "cpu") is causal_mask(33, "cpu")
