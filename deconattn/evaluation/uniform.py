"""The model that knows nothing: every token of the vocabulary is equally likely."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from deconattn.evaluation.scoring import Request, Score, TokenizedLM

WINDOW = 2048  # how long texts are cut changes nothing here


class UniformModel(TokenizedLM):
    """log p = −log V for every token, V the tokenizer's vocabulary."""

    def __init__(self, tokenizer_folder: str | Path) -> None:
        super().__init__(tokenizer_folder, WINDOW)
        self._log_vocabulary = math.log(self._tokenizer.get_vocab_size())

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Score]:
        return [(-len(continuation) * self._log_vocabulary, False) for _, _, continuation in requests]
