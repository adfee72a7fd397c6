"""Decoding under autocast: states keep float32 sums, and each token has the logits of one forward over all."""

from __future__ import annotations

import pytest
import torch

from deconattn import mixers
from deconattn.costs import state_bytes
from deconattn.model import LanguageModel, ModelConfig, initialise

SUMS = {"maximum", "total", "weighted", "sums"}


@torch.no_grad()
@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("variant", mixers.names())
def test_decoding_under_autocast(variant: str, layout: str) -> None:
    """Heads of 4: `approximate` turns to sums at 18 positions, in the prompt and behind it."""
    config = ModelConfig(
        vocab_size=97, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        variant=variant, layout=layout, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    model = LanguageModel(config).eval()
    initialise(model, 0)
    ids = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        whole = model.model(ids).float()
        for prompt in (7, 33):
            state = model.model.new_state()
            parts = [model.model(ids[:, :prompt], state=state)]
            parts += [model.model(token, state=state) for token in ids[:, prompt:].split(1, dim=1)]
            stepped = torch.cat(parts, dim=1).float()
            assert (stepped - whole).norm() < 2e-2 * whole.norm()
            for layer in state.layers:
                assert all(tensor.dtype == torch.float32 for name, tensor in layer.tensors.items() if name in SUMS)
    assert state.nbytes() == state_bytes(config, 2, 40, itemsize=2)
