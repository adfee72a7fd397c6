"""Under torch.compile, as a training on GPUs has it, each variant is one graph, and the same model."""

from __future__ import annotations

import pytest
import torch

from tests.mixers.cases import FLOAT64, assert_near, build, config_of, each_variant, joined, reference_gradients, tokens

pytestmark = pytest.mark.slow


@each_variant
def test_a_compiled_model_is_one_graph_with_the_same_gradients(variant: str) -> None:
    """Traced, forward and backward, without code generation; a break in the graph would be an error."""
    config, ids = config_of(variant, "even", "grouped"), tokens(2, 257)
    model, state = build(config)
    torch.compiler.reset()
    model.train().model.compile(fullgraph=True, backend="aot_eager")
    model.loss(ids).backward()
    expected = reference_gradients(config, state, ids)
    assert_near(joined(model.get_parameter(name).grad for name in expected), joined(expected.values()), FLOAT64)
