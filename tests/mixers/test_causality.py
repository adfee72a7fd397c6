"""No position knows what comes after it: by gradient, and to the bit by exchanging the future."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.mixers.cases import build, config_of, each_kind, each_length, tokens


@each_kind
def test_causal_by_gradient(variant: str, layout: str, heads: str) -> None:
    """Of one position's logits with respect to the embeddings of all positions, the text's and the side stream's."""
    length = 127
    model, _ = build(config_of(variant, layout, heads))
    model.train()
    if model.model.side_stream == "random":
        model.model.side_embeddings.requires_grad_()
    embedded: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        embedded.append(output)

    model.model.embed_tokens.register_forward_hook(keep)
    logits = model(tokens(1, length))[0]
    streams = {"the text": embedded[0]}
    if model.model.side_stream is not None:
        streams["the side stream"] = model.model.side_embeddings if model.model.side_stream == "random" else embedded[1]
    for i in (0, 1, 15, 16, 31, 32, 63, 64, length - 1):
        found = torch.autograd.grad(logits[i].cos().sum(), list(streams.values()), retain_graph=True)
        for name, gradient in zip(streams, found, strict=True):
            moved = gradient.flatten(0, -2).abs().amax(1) > 0
            assert not moved[i + 1 :].any(), f"position {i} sees {name} beyond itself"
            # The side stream's first position gives the first map, which is 1 whatever it holds.
            assert moved[i] or (name == "the side stream" and i == 0), f"position {i} does not see itself in {name}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_length
@each_kind
@torch.no_grad()
def test_another_future_leaves_the_past_as_it_is_to_the_bit(
    variant: str, layout: str, heads: str, length: int, dtype: torch.dtype
) -> None:
    model, _ = build(config_of(variant, layout, heads), dtype=dtype)
    ids = tokens(2, length)
    before = model.eval()(ids)
    for i in {0, length // 3, length // 2, length - 1}:
        other = ids.clone()
        other[:, i:] = (ids[:, i:] + tokens(2, length - i, seed=i + 1) % 96 + 1) % 97
        after = model(other)
        assert torch.equal(before[:, :i], after[:, :i]), f"positions before {i} know what follows"
        assert (before[:, i] != after[:, i]).any(-1).all(), f"position {i} does not know itself"
