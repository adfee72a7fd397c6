"""Text documents as Parquet: the mirror writes them, the tokenizer and the token table read them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError
from deconattn.files import atomic_write, sha256_file

SCHEMA = pa.schema([("text", pa.string()), ("meta", pa.string())])
_ROW_GROUP_BYTES = 8 << 20
_WHITE_SPACE = re.compile(r"\s+")

Document = tuple[str, dict[str, Any]]
"""A text and its metadata."""


def part_name(part: int) -> str:
    """`part-0003` for 3: the stem of a part's files at every stage."""
    return f"part-{part:04d}"


def is_heldout(text: str, fraction: float) -> bool:
    """Whether a document is held out: SHA-256 of its UTF-8 text, read as a number, / 2^256 < `fraction`.

    Equal texts fall on the same side, whatever the shard, the order or the budget.
    """
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest(), "big")
    return number < fraction * 2.0**256


def count_words(text: str) -> int:
    """Words as lm-eval's WikiText task counts them: pieces between runs of white space."""
    return len(_WHITE_SPACE.split(text))


def documents_of(rows: Iterable[dict[str, Any]], column: str, where: str) -> Iterator[Document]:
    """The documents in the rows of a source: `column` is the text (null: empty), the other columns are its meta.

    Raises `UserError` for a row without that column, and for a value that is not text: nothing is converted.
    """
    for number, row in enumerate(rows):
        if column not in row:
            raise UserError(f"{where}: no column {column!r} (it has: {', '.join(row)})")
        text = row.pop(column)
        if not isinstance(text, str | None):
            kind = type(text).__name__
            raise UserError(f"{where}: row {number} (from 0), column {column!r}: {shown(text)} is {kind}, not text")
        yield text or "", _meta(row)


def _meta(others: dict[str, Any]) -> dict[str, Any]:
    """The column `meta`, a struct or JSON, when it is the only one beside the text; else every other column."""
    if list(others) != ["meta"]:
        return others
    meta = others["meta"]
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except json.JSONDecodeError:
            return others
    return meta if isinstance(meta, dict) else others


def shown(value: Any) -> str:
    """A value as an error message shows it: its `repr`, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def write_documents(documents: Iterable[Document], path: Path, max_bytes: int | None = None) -> dict[str, Any]:
    """Write documents as Parquet, leaving out those that are only white space.

    The document that reaches `max_bytes` of UTF-8 text is the last one, and is kept whole.
    Returns file, rows, bytes (of text), sha256, empty (documents left out) and licence (from the documents' metadata).
    """
    rows = size = empty = 0
    licences: set[str] = set()
    group: list[dict[str, str]] = []
    group_bytes = 0
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for text, meta in documents:
            if not text.strip():
                empty += 1
                continue
            group.append({"text": text, "meta": json.dumps(meta, sort_keys=True, default=str)})
            licences.add(str(meta.get("license") or ""))
            length = len(text.encode("utf-8"))
            rows, size, group_bytes = rows + 1, size + length, group_bytes + length
            if group_bytes >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                group, group_bytes = [], 0
            if max_bytes is not None and size >= max_bytes:
                break
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
    return {
        "file": path.name,
        "rows": rows,
        "bytes": size,
        "empty": empty,
        "sha256": sha256_file(path),
        "licence": "; ".join(sorted(licences - {""})) or None,
    }


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn a missing or damaged Parquet file into a `UserError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as Parquet ({' '.join(str(error).split())[:200]})") from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A small Parquet file, or some columns of it; `UserError` when it is missing or damaged."""
    # `pq.read_table` would import pandas, which costs a training a second of start-up.
    with _readable(path), pq.ParquetFile(path) as file:
        return file.read(columns=columns, use_threads=False)


def read_columns(path: Path, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of `columns` (None: all) of a Parquet file.

    Raises `UserError` naming the file when it is missing or damaged, or lacks a column.
    """
    with _readable(path), pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        if missing := sorted(set(columns or []) - set(there)):
            raise UserError(f"{path}: no column {missing[0]!r} (it has: {', '.join(there)})")
        for batch in file.iter_batches(batch_size=batch_rows, columns=columns, use_threads=False):
            batch.validate(full=True)  # text that is not UTF-8
            yield batch


def read_texts(path: Path, batch_documents: int = 256) -> Iterator[list[str]]:
    """Yield the texts of a corpus part in order, a list of at most `batch_documents` at a time; errors as `read_columns`."""
    for batch in read_columns(path, ["text"], batch_documents):
        yield batch.column(0).to_pylist()
