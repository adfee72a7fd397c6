"""Under torch.compile, as a training on GPUs has it, each variant is one graph, and the same model."""

from __future__ import annotations

import pytest
import torch

from tests.mixers.cases import FLOAT64, assert_near, build, config_of, definition, each_variant, tokens
from tests.reference import naive

pytestmark = pytest.mark.usefixtures("one_thread")


@each_variant
def test_a_compiled_model_is_one_graph_with_the_same_gradients(variant: str) -> None:
    """Traced, forward and backward, without code generation; a break in the graph would be an error."""
    config, ids = config_of(variant, "even", "grouped"), tokens(2, 257)
    model, state = build(config)
    torch.compiler.reset()
    model.train().model.compile(fullgraph=True, backend="aot_eager")
    model.loss(ids).backward()
    expected = naive.gradients(config, state, ids, definition(config))
    found = torch.cat([model.get_parameter(name).grad.flatten() for name in expected])
    assert_near(found, torch.cat([gradient.flatten() for gradient in expected.values()]), FLOAT64)
