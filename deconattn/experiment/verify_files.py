"""What every check of a result rests on: a file against its sum, a record, a Parquet that has none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.experiment.records import is_whole, read_record
from deconattn.files import sha256_file


class Files:
    """Checks files, and counts what it read. `problems` are lines of path and what is wrong with it, each path once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.files = 0
        self.bytes = 0
        self._said: set[tuple[Path, str]] = set()

    def bad(self, path: Path, what: str) -> None:
        """Something is wrong with a file."""
        if (path, what) not in self._said:
            self._said.add((path, what))
            self.problems.append(f"{path}: {what}")

    def there(self, path: Path, by: str) -> bool:
        """Whether a file that `by` asks for is there; says so when it is not."""
        if not path.is_file():
            self.bad(path, f"missing, though {by} names it")
        return path.is_file()

    def sum(self, path: Path, sha256: Any, by: str) -> None:
        """A file against the sum that `by` states of it."""
        if not self.there(path, by):
            return
        self._count(path)
        if sha256_file(path) != sha256:
            self.bad(path, f"its SHA-256 is not the one in {by}: changed or damaged since it was written")

    def record(self, path: Path, by: str = "what lies beside it") -> dict[str, Any] | None:
        """A JSON object; None, and said, when it is missing or none."""
        if not self.there(path, by):
            return None
        self._count(path)
        found, _ = read_record(path)
        if found is None:
            self.bad(path, "not readable as a record (JSON)")
        elif not is_whole(found):
            self.bad(path, "not what its own sum says: changed or damaged since it was written")
        return found

    def sums(self, record_path: Path, record: dict[str, Any], expected: Iterable[str] = ()) -> set[str]:
        """The files that a record states sums of, and those that it should: the names that it has."""
        stated = record.get("files")
        if stated is None:
            self.bad(record_path, "states no sums: written by an earlier version; its files cannot be checked")
            stated = {}
        if not isinstance(stated, dict):
            self.bad(record_path, f"its `files` are no sums: {stated!r:.40}")
            stated = {}
        for name, sha256 in stated.items():
            self.sum(record_path.parent / name, sha256, record_path.name)
        for name in expected:
            if name not in stated and self.there(record_path.parent / name, record_path.name) and "files" in record:
                self.bad(record_path, f"states no sum of {name}")
        return set(stated)

    def parquet(self, path: Path, by: str) -> None:
        """A Parquet of which no sum is kept: whether all of it can be read."""
        if not self.there(path, by):
            return
        self._count(path)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for _ in file.iter_batches():
                    pass
        except (pa.ArrowException, OSError, ValueError) as error:
            self.bad(path, f"not readable as Parquet ({' '.join(str(error).split()):.80})")

    def _count(self, path: Path) -> None:
        self.files += 1
        self.bytes += path.stat().st_size


def entries(value: Any) -> list[dict[str, Any]]:
    """The objects of what should be a list of them."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def section(record: dict[str, Any] | None, key: str) -> dict[str, Any]:
    """The object under a key; an empty one where there is none."""
    found = (record or {}).get(key)
    return found if isinstance(found, dict) else {}
