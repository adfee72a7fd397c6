"""The layer that a diverged training names."""

from __future__ import annotations

import pytest
import torch

from deconattn.model import LanguageModel, ModelConfig, initialise
from deconattn.training.divergence import largest_scores


def small(variant: str, layout: str = "uniform") -> LanguageModel:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    }
    model = LanguageModel(ModelConfig(**sizes, max_position_embeddings=16, variant=variant, layout=layout))
    initialise(model, 0)
    return model


ROWS = torch.arange(32).view(2, 16)


@pytest.mark.parametrize("variant", ["standard", "approximate", "nonapproximate", "rndembqk", "staticembqk"])
@pytest.mark.parametrize("layer", [0, 2])
def test_the_layer_with_the_largest_score_is_named(variant: str, layer: int) -> None:
    model = small(variant)
    with torch.no_grad():
        model.model.layers[layer].self_attn.q_proj.weight.mul_(1e4)
    said = largest_scores(model, ROWS)
    assert said.startswith(f"; the largest score before the softmax, in layer {layer + 1} of 4 ({variant}), is ")
    assert float(said.rsplit(" ", 1)[1]) > 1


def test_the_first_score_that_is_not_finite_is_the_largest() -> None:
    model = small("nonapproximate", "even")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(1e4)
        model.model.layers[1].self_attn.k_proj.weight.fill_(torch.inf)
    said = largest_scores(model, ROWS)
    kind = "standard" if model.model.layers[1].standard else "nonapproximate"
    assert said == f"; the largest score before the softmax, in layer 2 of 4 ({kind}), is not finite"


def test_mlp_has_no_scores() -> None:
    assert largest_scores(small("mlp"), ROWS) == "; no layer has scores before a softmax"
    assert "(standard)" in largest_scores(small("mlp", "even"), ROWS)
