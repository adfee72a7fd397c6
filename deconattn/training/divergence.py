"""Where the scores before the softmax are largest in a model whose training diverged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deconattn.decoder import LanguageModel

SEQUENCES = 4  # that are looked at: a score that grows does so everywhere


@torch.no_grad()
def largest_scores(model: LanguageModel, rows: Tensor) -> str:
    """The layer with the largest score for rows (B, L) and the weights as they are: the end of a sentence.

    Of layers whose scores are not finite it is the first: the others read what comes from it. A layer that mixes no
    positions has no scores.
    """
    largest = _largest_by_layer(model, rows[:SEQUENCES])
    if not largest:
        return "; no layer has scores before a softmax"
    worst = max(largest, key=lambda index: largest[index])
    kind = "standard" if model.model.blocks()[worst].standard else model.config.variant
    value = f"is {largest[worst]:.3g}" if math.isfinite(largest[worst]) else "is not finite"
    return f"; the largest score before the softmax, in layer {worst + 1} of {model.config.num_hidden_layers} ({kind}), {value}"


def _largest_by_layer(model: LanguageModel, rows: Tensor) -> dict[int, float]:
    """Layer → max |s|, inf where a score is not finite. A sequence at a time: scores are L²."""
    largest: dict[int, float] = {}
    for row in rows:
        embeddings = x = model.model.embed(row[None])
        for index, block in enumerate(model.model.blocks()):
            scores = block.self_attn.raw_scores(block.mixer_inputs(x, embeddings)[1])
            if scores is not None:
                size = scores.abs().max().nan_to_num(nan=math.inf, posinf=math.inf).item()
                largest[index] = max(largest.get(index, 0.0), size)
            x = block(x, embeddings, None)
    return largest
