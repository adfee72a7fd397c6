"""Texts → token ids, each text followed by end-of-text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 65536 else np.uint32)


def encode(encoder: Tokenizer, texts: list[str], end_of_text: int, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """Yield the ids of each text followed by end-of-text: 1-D arrays of `dtype`."""
    for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array([*encoding.ids, end_of_text], dtype=dtype)
