"""Parquet tables of results: the columns that name a run, and rows that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.files import atomic_write

RUN_COLUMNS = [
    ("run", pa.string()),
    ("model", pa.string()),
    ("variant", pa.string()),
    ("layout", pa.string()),
    ("seed", pa.int64()),
]


def run_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `RUN_COLUMNS` for the run with this spec.json."""
    model = spec["model"]
    return {
        "run": spec["run"],
        "model": model["name"],
        "variant": model["variant"],
        "layout": model["layout"],
        "seed": spec["seed"],
    }


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    """Write rows as Parquet and return the path; columns that a row lacks are null."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
    return path
