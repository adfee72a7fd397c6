"""Which measurements the gathered costs stand on: asked by a launch to see what changed, and by the job to write it down."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deconattn.files import sha256_file


def sums_of(measured: Iterable[Path]) -> dict[str, str | None]:
    """Record → SHA-256 of each measurement (a path without its `.parquet`); None for one that is not there."""
    records = [path.with_name(f"{path.name}.json") for path in map(Path, measured)]
    return {str(record): sha256_file(record) if record.is_file() else None for record in records}
