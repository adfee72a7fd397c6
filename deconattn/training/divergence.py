"""Why a training diverged, as far as the scores before the softmax tell: where they are largest."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from deconattn.model import Block, LanguageModel

SEQUENCES = 4  # that are looked at: a score that grows does so everywhere


@torch.no_grad()
def largest_scores(model: LanguageModel, rows: Tensor) -> str:
    """The layer with the largest score before the softmax, as words, for rows (B, L) and the weights as they are.

    A score that is not finite is the largest of all, and of several such layers the first: what follows it has its input
    from it. Layers that mix no positions have no scores; where none has, that is what is said.
    """
    largest = [0.0 if scores is None else scores for scores in _by_layer(model, rows[:SEQUENCES])]
    scored = [index for index, scores in enumerate(_has_scores(model)) if scores]
    if not scored:
        return "; no layer has scores before a softmax"
    broken = [index for index in scored if not math.isfinite(largest[index])]
    worst = broken[0] if broken else max(scored, key=lambda index: largest[index])
    block = cast(Block, model.model.layers[worst])
    kind = "standard" if block.standard else model.config.variant
    value = "is not finite" if broken else f"is {largest[worst]:.3g}"
    return f"; the largest score before the softmax, in layer {worst + 1} of {len(largest)} ({kind}), {value}"


def _has_scores(model: LanguageModel) -> list[bool]:
    return [hasattr(cast(Block, block).self_attn, "q_proj") for block in model.model.layers]


def _by_layer(model: LanguageModel, rows: Tensor) -> list[float | None]:
    """max |s| of each layer; inf where a score is not finite, None where there are none. A sequence at a time: scores are L²."""
    found: list[float | None] = [None] * len(model.model.layers)
    for row in rows:
        embeddings = x = model.model.embed(row[None])
        for index, layer in enumerate(model.model.layers):
            block = cast(Block, layer)
            scores = block.self_attn.raw_scores(block.mixer_inputs(x, embeddings)[1])
            if scores is not None:
                size = scores.abs().max().item()
                found[index] = max(found[index] or 0.0, size if math.isfinite(size) else math.inf)
            x = block(x, embeddings, None)
    return found
