"""The sentence for a name that does not exist: what it is not, the nearest one that is, and all that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(value: Any, allowed: Iterable[str]) -> str | None:
    """The allowed name that `value` is most likely meant to be; None if it resembles none."""
    near = difflib.get_close_matches(str(value), list(allowed), n=1)
    return near[0] if near else None


def not_one_of(value: Any, kind: str, allowed: Iterable[str]) -> str:
    """Say that `value` is not a `kind` ("layout", …): "'evem' is not a layout; did you mean 'even'? (allowed: …)"."""
    names = list(allowed)
    near = nearest(value, names)
    hint = f"; did you mean {near!r}?" if near else ""
    article = "an" if kind[0] in "aeiou" else "a"
    return f"{value!r} is not {article} {kind}{hint} (allowed: {', '.join(names) or 'none'})"
