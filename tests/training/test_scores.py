"""The layer that a diverged training names."""

from __future__ import annotations

import pytest
import torch

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.training.divergence import largest_scores

ROWS = torch.arange(32).view(2, 16)


def told(variant: str, layout: str = "uniform", **factors: float) -> str:
    """What is told of a model of four layers, weights multiplied by `factors`: `q2` is layer 2's q_proj, from 1."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    config = ModelConfig(**sizes, num_attention_heads=2, max_position_embeddings=16, variant=variant, layout=layout)
    model = LanguageModel(config)
    initialise(model, 0)
    for name, factor in factors.items():
        attention = model.model.layers[int(name[1]) - 1].self_attn
        getattr(attention, f"{name[0]}_proj").weight.data.mul_(factor)
    return largest_scores(model, ROWS)


@pytest.mark.parametrize("variant", ["standard", "approximate", "nonapproximate", "rndembqk", "staticembqk"])
@pytest.mark.parametrize("layer", [1, 3])
def test_the_layer_with_the_largest_score_is_named(variant: str, layer: int) -> None:
    said = told(variant, **{f"q{layer}": 1e4})
    assert said.startswith(f"; the largest score before the softmax, in layer {layer} of 4 ({variant}), is ")
    assert float(said.rsplit(" ", 1)[1]) > 1


def test_the_first_score_that_is_not_finite_is_the_largest() -> None:
    said = told("nonapproximate", "even", q1=1e4, k2=torch.inf)
    assert said == "; the largest score before the softmax, in layer 2 of 4 (standard), is not finite"


def test_mlp_has_no_scores() -> None:
    assert told("mlp") == "; no layer has scores before a softmax"
    assert "(standard)" in told("mlp", "even")
