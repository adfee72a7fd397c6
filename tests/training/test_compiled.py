"""A compiled training computes in the precision of an eager one, and compiles once."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention import flex_attention

from deconattn.mixers import approximate
from deconattn.training.parallel import Loss
from tests.mixers.cases import FLOAT32, assert_near, build, config_of, each_variant, normal, tokens

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward are traced; no code is generated, which takes long and is none of ours."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    counters.clear()


def gradients(loss: Loss, ids: Tensor) -> dict[str, Tensor]:
    loss.zero_grad(set_to_none=True)
    (loss(ids) / ids[:, 1:].numel()).backward()
    return {name: parameter.grad.clone() for name, parameter in loss.model.named_parameters()}


@each_variant
def test_its_gradients_in_bf16_are_those_of_an_eager_one(variant: str) -> None:
    """Of each parameter, nearer than bf16 could tell. Traced under autocast, float32 products of a backward would be bf16."""
    config, ids = config_of(variant, "even", "grouped"), tokens(2, 65)
    loss = Loss(build(config, dtype=torch.float32)[0].train(), "bf16")
    eager = gradients(loss, ids)
    loss.compile_parts(len(ids))
    compiled = gradients(loss, ids)
    assert counters["stats"]["unique_graphs"] >= 2  # two kinds of layer, or one and the head
    assert not counters["graph_break"], "a block is one graph"
    for name, gradient in eager.items():
        assert_near(compiled[name], gradient, 1e-5, name)


@pytest.mark.parametrize("variant", ["rndembqk", "approximate"])
def test_it_compiles_once(variant: str) -> None:
    """Neither a smaller last micro-batch nor a smaller evaluation is compiled for itself."""
    config, ids = config_of(variant, "even"), tokens(5, 33)
    loss = Loss(build(config, dtype=torch.float32)[0].train(), "float32")
    expected = gradients(loss, ids[:1])
    loss.compile_parts(2)
    loss(ids[:2]).backward()
    trained = counters["stats"]["unique_graphs"]
    last = gradients(loss, ids[:1])
    assert counters["stats"]["unique_graphs"] == trained + 1  # of the head's chunk, any size from now on
    for name, gradient in expected.items():
        assert_near(last[name], gradient, FLOAT32, name)
    with torch.no_grad():
        evaluated = [loss.eval()(ids[:2])]
        compiled = counters["stats"]["unique_graphs"]
        evaluated += [loss(ids[2:4]), loss(ids[4:])]
    assert counters["stats"]["unique_graphs"] == compiled
    assert sum(evaluated).item() == pytest.approx(5 * 32 * loss.model.loss(ids).item(), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("made_before", [True, False])
def test_it_reads_the_block_mask_that_was_made_before(made_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "_masks", {})
    q, k, v = normal(3, 1, 2, 40, 16).float().unbind()
    if made_before:
        approximate.causal_mask(40, "cpu")
        monkeypatch.setattr(flex_attention, "create_block_mask", None)
    found = torch.compile(approximate.fused, fullgraph=True, dynamic=False)(q, k, v)
    assert_near(found, approximate.block_attention(q, k, v, approximate.block_weights), FLOAT32)
    assert len(approximate._masks) == made_before
