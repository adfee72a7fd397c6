"""Values that take long to work out, kept among the user's caches from one launch to the next."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from deconattn.experiment.record import read_object
from deconattn.files import atomic_write

Value = TypeVar("Value")


class Memo(Generic[Value]):
    """Values by key in `<cache>/deconattn/<name>.json`, for one state of what they are made from.

    A file that is broken, or of another state, counts as empty and is replaced.
    """

    def __init__(self, name: str, state: str = "") -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.file, self.state = Path(cache, "deconattn", f"{name}.json"), state
        held = read_object(self.file) or {}
        known = held.get("values") if held.get("state") == state else None
        self.known: dict[str, Value] = known if isinstance(known, dict) else {}
        self.kept = len(self.known)

    def of(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, worked out if it is not known."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def keep(self) -> None:
        """Write what is new, for others; where nothing can be written, they work it out again."""
        if len(self.known) > self.kept:
            # without indents, with which json takes ten times as long
            with contextlib.suppress(OSError), atomic_write(self.file) as temporary:
                temporary.write_text(json.dumps({"state": self.state, "values": self.known}), encoding="utf-8")
            self.kept = len(self.known)
