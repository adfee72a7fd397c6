"""A folder of Parquet as a source: corpus/<name>.parquet, tasks/<task>.parquet, tokenizer/tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from deconattn.data.documents import read_columns
from deconattn.data.tasks import check_known, conform
from deconattn.errors import UserError


def documents(path: Path, names: list[str], text_column: str = "text") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (text, meta) of corpus/<name>.parquet for each name in turn; a `meta` column may be a struct or JSON."""
    if not names:
        raise UserError(f"folder {path}: no corpus named (it has: {_listed(path / 'corpus')})")
    for name in names:
        file = _existing(path, "corpus", name)
        for batch in read_columns(file, None, 256):
            if text_column not in batch.schema.names:
                raise UserError(f"{file}: no column {text_column!r} (it has: {', '.join(batch.schema.names)})")
            for row in batch.to_pylist():
                text = row.pop(text_column) or ""
                yield text, meta_of(row)


def meta_of(others: dict[str, Any]) -> dict[str, Any]:
    """What is known of a document beside its text: its `meta` when that is all there is, else every other column."""
    if list(others) != ["meta"]:
        return others
    meta = others["meta"]
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except json.JSONDecodeError:
            return others
    return meta if isinstance(meta, dict) else others


def task_table(path: Path, task: str) -> pa.Table:
    """All items of tasks/<task>.parquet with exactly the task's columns."""
    check_known(task)
    file = _existing(path, "tasks", task)
    return conform(pa.Table.from_batches(read_columns(file, None, 1024)), task, str(file))


def tokenizer_file(path: Path) -> Path:
    """tokenizer/tokenizer.json of the folder, or the folder's own tokenizer.json."""
    for candidate in (path / "tokenizer" / "tokenizer.json", path / "tokenizer.json"):
        if candidate.is_file():
            return candidate
    raise UserError(f"folder {path}: no tokenizer/tokenizer.json in it")


def _existing(path: Path, kind: str, name: str) -> Path:
    file = path / kind / f"{name}.parquet"
    if not file.is_file():
        raise UserError(f"folder {path}: no {kind}/{name}.parquet in it (it has: {_listed(path / kind)})")
    return file


def _listed(folder: Path) -> str:
    return ", ".join(sorted(file.stem for file in folder.glob("*.parquet"))) or "none"
