"""Indicators and scores of every layer of a decoder over rows of text, layer by layer."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from deconattn.analysis.histogram import ScoreHistogram
from deconattn.analysis.indicators import PER_LAYER, indicators
from deconattn.decoder import Block, Decoder

HELD_AT_ONCE = 2**26
"""Elements of attention maps that are held at once, 256 MiB in float32 (one sequence's at least)."""


class NotFinite(Exception):
    """Weights, maps or scores of a model that are not finite: there is nothing to analyse."""


class LayerAnalysis:
    """Sums over sequences of one layer's indicators, and its score histogram."""

    def __init__(self, number: int, block: Block) -> None:
        self.number, self.standard = number, block.standard
        self.one_map = block.self_attn.qk_source == "side"
        self.sequences = 0
        self.sums: dict[str, Tensor] = {}
        self.scores: ScoreHistogram | None = None

    def add(self, block: Block, source: Tensor, batch: int) -> None:
        """Add the maps and scores made from `source` (B or 1, L, d) for a batch of `batch` sequences.

        Raises:
            NotFinite: a map or a score is not a finite number.
        """
        if self.one_map and self.sequences:
            return  # the side stream is the same for every batch
        # In a standard layer row 0 may be the side stream, which is no sequence.
        source = source[-batch:]
        attention = block.self_attn.attention_map(source)
        if attention is not None:
            check_finite(attention, f"the attention map of layer {self.number}")
            self.sequences += len(attention)
            for name, values in indicators(attention).items():
                self.sums[name] = self.sums.get(name, 0) + values.double().sum(0).cpu()
        del attention  # before the scores, which are as large
        scores = block.self_attn.raw_scores(source)
        if scores is not None:
            check_finite(scores, f"a score of layer {self.number}")
            self.scores = self.scores or ScoreHistogram()
            self.scores.add(scores)

    def attention_rows(self) -> list[dict[str, Any]]:
        """A row per head and indicator; `head` is null where the indicator is the layer's."""
        return [
            {**self._place(), "head": None if name in PER_LAYER else head, "indicator": name, "value": value}
            for name, total in self.sums.items()
            for head, value in enumerate((total / self.sequences).reshape(-1).tolist(), 1)
        ]

    def score_rows(self) -> list[dict[str, Any]]:
        """A row per bin that holds scores."""
        return [{**self._place(), **row} for row in self.scores.rows()] if self.scores else []

    def _place(self) -> dict[str, Any]:
        return {"sequences": self.sequences, "layer": self.number, "standard": self.standard}


def check_finite(values: Tensor, what: str) -> None:
    """Raise `NotFinite` unless all values are finite."""
    if not bool(torch.isfinite(values).all()):
        raise NotFinite(f"{what} is not finite")


@torch.no_grad()
def analyse(decoder: Decoder, rows: np.ndarray) -> list[LayerAnalysis]:
    """Analyse every layer over rows (N, L) of token ids.

    The maps of a batch are made, reduced and dropped before those of the next layer: no more than `HELD_AT_ONCE`
    elements of them, or one sequence's, are held.

    Raises:
        NotFinite: a map or a score is not a finite number.
    """
    blocks = [cast(Block, block) for block in decoder.layers]
    layers = [LayerAnalysis(number, block) for number, block in enumerate(blocks, 1)]
    one_sequence = decoder.config.num_attention_heads * rows.shape[1] ** 2
    token_ids = torch.from_numpy(rows).to(decoder.embed_tokens.weight.device)
    for input_ids in token_ids.split(max(1, HELD_AT_ONCE // one_sequence)):
        embeddings = x = decoder.embed(input_ids)
        for layer, block in zip(layers, blocks, strict=True):
            layer.add(block, block.mixer_inputs(x, embeddings)[1], len(input_ids))
            x = block(x, embeddings, None)
    return layers
