"""What files hold, as SHA-256, without reading again what has not been touched since.

A memo beside the mirror keeps size, times, inode and sum of each file of a source. A touched or copied file is read once
more and found the same. The time of change and the inode are asked as well: `cp -p` and `rsync -t` bring other bytes of the
same length under the same time of writing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deconattn.files import read_json, sha256_file, write_json

FILE = Path("resources/mirror/sources.json")


class Content:
    """Sums of files, remembered in `file` (None: in memory only, as a job does that was told them by its launch)."""

    def __init__(self, file: Path | None = FILE, known: dict[str, Any] | None = None) -> None:
        self.file = file
        self.known: dict[str, Any] = dict(known or {})
        self.fixed = known is not None
        if file and file.is_file():
            # A memo that cannot be read is only slower.
            with contextlib.suppress(Exception):
                found = read_json(file)
                self.known = found if isinstance(found, dict) else {}

    def sums(self, paths: Iterable[Path]) -> dict[str, str | None]:
        """File name → SHA-256; None for a file that is not there."""
        return {path.name: self._sum(path) for path in paths}

    def _sum(self, path: Path) -> str | None:
        key = str(path)
        entry = self.known.get(key)
        *known, sum_ = entry if isinstance(entry, list) and entry else [None]
        if self.fixed:
            return sum_
        if not path.is_file():
            return None
        status = path.stat()
        now = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known == now and isinstance(sum_, str):
            return sum_
        sum_ = sha256_file(path)
        self.known[key] = [*now, sum_]
        if self.file:
            # Read-only for this user: computed anew each time.
            with contextlib.suppress(OSError):
                write_json(self.file, self.known)
        return sum_
