"""What was found in a source file, remembered by its bytes: parsing the package takes longer than planning 1,000 runs."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from deconattn.files import atomic_write

Tree = tuple[str, list[str], list[str]]
"""Digest of the syntax tree, modules it imports, names that may be modules."""

FILE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deconattn" / "trees.json"
MOST = 2_000
_known: dict[str, Tree] | None = None
_will_save = False
# What is found depends on how it is looked for.
_RULES = hashlib.sha256(Path(__file__).with_name("code.py").read_bytes()).digest()


def get(data: bytes, read: Callable[[], Tree]) -> Tree:
    """What `read` finds in a file of these bytes, now or at any time before."""
    global _known, _will_save
    if _known is None:
        _known = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(FILE.read_text())
            _known = found if isinstance(found, dict) else {}
    key = hashlib.sha256(_RULES + data).hexdigest()
    if not _is_tree(_known.get(key)):
        if not _will_save:
            _will_save = True
            atexit.register(_save)
        _known[key] = read()
    return _known[key]


def _is_tree(found: object) -> bool:
    """Whether it has the shape of a `Tree`: a memo that was damaged is only slower."""
    match found:
        case [str(), list() as certain, list() as possible]:
            return all(isinstance(name, str) for name in (*certain, *possible))
    return False


def _save() -> None:
    # A folder that cannot be written, or two that write at once, cost a little time and nothing else.
    with contextlib.suppress(OSError), atomic_write(FILE) as temporary:
        temporary.write_text(json.dumps(dict(list((_known or {}).items())[-MOST:])))
