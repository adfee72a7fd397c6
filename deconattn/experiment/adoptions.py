"""Code that was declared to give the results of other code: `config/adoptions.yaml`, which is committed and reviewed.

Each entry says that the code with digest `to` computes what the code with digest `from` computed. Entries join up: what
was adopted from what was adopted is the same as well. A run is then found under the name that its code had when it ran.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deconattn.errors import UserError
from deconattn.files import atomic_write

FILE = Path("config/adoptions.yaml")
KEYS = ("from", "to", "what", "reason", "date")
_HEAD = """\
# Written by `deconattn adopt`: code `to` computes what code `from` computed, so that finished results stay valid.
# Each entry is a claim that a reviewer can check: `git log` has both states of the code.
"""


@dataclass(frozen=True)
class Adoptions:
    """The entries of a file, in its order."""

    entries: tuple[dict[str, str], ...] = ()

    @classmethod
    def load(cls, path: Path = FILE) -> Adoptions:
        """Read a file; none is no adoption.

        Raises:
            UserError: not YAML, or an entry that is not complete.
        """
        if not path.is_file():
            return cls()
        try:
            data = yaml.load(path.read_text(), Loader=yaml.SafeLoader) or []
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}:{mark.line + 1}" if mark else str(path)
            raise UserError(f"{place}: not valid YAML ({getattr(error, 'problem', error)})") from None
        return cls.of(data, path)

    @classmethod
    def of(cls, data: Any, path: Path = FILE) -> Adoptions:
        """Check plain data.

        Raises:
            UserError: an entry that is not complete.
        """
        if not isinstance(data, list):
            raise UserError(f"{path}: must be a list of entries with {', '.join(KEYS)}")
        for number, entry in enumerate(data, 1):
            missing = [key for key in KEYS if not isinstance(entry, dict) or not str(entry.get(key) or "").strip()]
            if missing:
                raise UserError(f"{path}: entry {number}: {', '.join(missing)} missing (needed: {', '.join(KEYS)})")
            for key in ("from", "to"):
                if not re.fullmatch(r"[0-9a-f]{16}", str(entry[key])):
                    raise UserError(
                        f"{path}: entry {number}: {key} {entry[key]!r} is not a digest (16 hex digits, quoted)"
                    )
        return cls(tuple({key: str(entry[key]) for key in KEYS} for entry in data))

    def same(self, digest: str) -> list[str]:
        """All digests that stand for the same results as `digest`, itself included: the first declared first."""
        known = {digest}
        while True:
            more = {
                d
                for entry in self.entries
                if known & {entry["from"], entry["to"]}
                for d in (entry["from"], entry["to"])
            }
            if more <= known:
                break
            known |= more
        order = dict.fromkeys(d for entry in self.entries for d in (entry["from"], entry["to"]) if d in known)
        return list(order) or [digest]

    def first(self, digest: str) -> str:
        """The digest that names all that are the same as `digest`."""
        return self.same(digest)[0]

    def add(self, entries: Iterable[dict[str, str]], path: Path = FILE) -> Adoptions:
        """Append entries and write the file."""
        grown = Adoptions((*self.entries, *entries))
        with atomic_write(path) as temporary:
            body = yaml.safe_dump(list(grown.entries), sort_keys=False, allow_unicode=True, width=120)
            temporary.write_text(_HEAD + body)
        return grown
