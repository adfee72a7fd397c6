"""Text documents as Parquet: what the mirror writes, the tokenizer and the token table read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError
from deconattn.files import atomic_write, sha256_file

SCHEMA = pa.schema([("text", pa.string()), ("meta", pa.string())])
_ROW_GROUP_BYTES = 8 << 20

Document = tuple[str, dict[str, Any]]


def part_name(part: int) -> str:
    """`part-0003` for 3: the stem of a part's files at every stage."""
    return f"part-{part:04d}"


def part_number(path: Path) -> int:
    """The number in `part-NNNN.parquet`; `UserError` for any other name."""
    stem, _, digits = path.stem.partition("-")
    if stem != "part" or not digits.isdigit():
        raise UserError(f"{path}: not the name of a corpus part (part-NNNN.parquet)")
    return int(digits)


def every(documents: Iterable[Document], part: int, parts: int) -> Iterator[Document]:
    """The documents that part `part` of `parts` holds: every `parts`-th, so that parts are alike whatever the order."""
    return (document for index, document in enumerate(documents) if index % parts == part)


def write_documents(
    documents: Iterable[tuple[str, dict[str, Any]]], path: Path, max_bytes: int | None = None
) -> dict[str, Any]:
    """Write (text, meta) documents as Parquet; documents of white space only are left out.

    The document that reaches `max_bytes` of UTF-8 text is the last one, and is kept whole.
    Returns file, rows, bytes (of text), sha256, empty (documents left out) and licence (as the documents state it).
    """
    rows = size = empty = 0
    licences: set[str] = set()
    group: list[dict[str, str]] = []
    group_bytes = 0
    with atomic_write(path) as temporary:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            for text, meta in documents:
                if not text.strip():
                    empty += 1
                    continue
                text, length = _encodable(text)
                group.append({"text": text, "meta": json.dumps(meta, sort_keys=True, default=str)})
                licences.add(str(meta.get("license") or ""))
                rows, size, group_bytes = rows + 1, size + length, group_bytes + length
                if group_bytes >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                    group, group_bytes = [], 0
                if max_bytes is not None and size >= max_bytes:
                    break
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
    stated = sorted(licences - {""})
    return {
        "file": path.name,
        "rows": rows,
        "bytes": size,
        "empty": empty,
        "sha256": sha256_file(path),
        "licence": "; ".join(stated) if stated else None,
    }


def _encodable(text: str) -> tuple[str, int]:
    """The text and its length in UTF-8 bytes; lone surrogates, which JSON allows and UTF-8 does not, become "?"."""
    try:
        return text, len(text.encode("utf-8"))
    except UnicodeEncodeError:
        encoded = text.encode("utf-8", "replace")
        return encoded.decode("utf-8"), len(encoded)


def read_texts(path: Path, batch_documents: int = 256) -> Iterator[list[str]]:
    """Yield the `text` column in order, a list of at most `batch_documents` at a time.

    Raises `UserError` naming the file when it is missing, is no Parquet, or has no such column.
    """
    for batch in read_columns(path, ["text"], batch_documents):
        yield batch.column(0).to_pylist()


def read_columns(path: Path, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of `columns` (all: None) of a Parquet file; `UserError` as `read_texts`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(columns or []) - set(file.schema_arrow.names))
            if missing:
                raise UserError(f"{path}: no column {missing[0]!r} (it has: {', '.join(file.schema_arrow.names)})")
            yield from file.iter_batches(batch_size=batch_rows, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as Parquet ({' '.join(str(error).split())[:200]})") from error
