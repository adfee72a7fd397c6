"""Which documents are held out: decided by the text alone."""

from __future__ import annotations

import hashlib
import re

_WHITE_SPACE = re.compile(r"\s+")


def is_heldout(text: str, fraction: float) -> bool:
    """Whether a document is held out: SHA-256 of its UTF-8 text, read as a number, / 2^256 < `fraction`.

    Equal texts fall on the same side, whatever the shard, the order or the budget.
    """
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest(), "big")
    return number < fraction * 2.0**256


def count_words(text: str) -> int:
    """Words as lm-eval's WikiText task counts them: pieces between runs of white space."""
    return len(_WHITE_SPACE.split(text))
