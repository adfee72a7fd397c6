"""Corpus parts → the token table: documents joined by end-of-text, packed into rows of the context length; the side text.

One job a part (`tokenize_part`), then one that gathers them (`finish_tokens`). The output for a part depends only on
that part, the tokenizer and the settings, so any number of jobs may run in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data.documents import count_words, is_heldout, part_name, read_columns, read_table, read_texts
from deconattn.data.packing import RowWriter
from deconattn.data.tokenizer import encode, load_tokenizer, token_dtype, vocabulary_rows
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

_CHUNK_CHARACTERS = 1 << 20
_PART_KEYS = "file rows tokens sha256 row_group_rows documents bytes dropped_tokens budget".split()


def share_of_budget(budget: int | None, part: int, parts: int) -> int | None:
    """What part `part` of `parts` may hold (tokens or bytes), so that all together hold `budget`."""
    return None if budget is None else budget // parts + (part < budget % parts)


def tokenize_part(
    corpus_part: Path,
    tokenizer: Path,
    context_length: int,
    out: Path,
    *,
    heldout_fraction: float,
    budget: int | None = None,
) -> dict[str, Any]:
    """Tokenise corpus_part (part-NNNN.parquet): out/part-NNNN.parquet, heldout-NNNN.parquet, part-NNNN.json.

    Training documents, each followed by end-of-text, are packed into rows of exactly `context_length` tokens; what
    does not fill the last row is dropped and counted. `budget` (tokens for this part) cuts after
    budget // context_length rows; held-out documents still come from the whole part.
    Returns the part's manifest. Raises `UserError` for files that cannot be read.
    """
    encoder, end_of_text = load_tokenizer(tokenizer)
    vocab_size = vocabulary_rows(encoder)
    dtype = token_dtype(vocab_size)
    path, heldout_path = out / corpus_part.name, out / corpus_part.name.replace("part-", "heldout-")
    max_rows = None if budget is None else budget // context_length
    documents = size = 0
    with (
        atomic_write(path) as temporary,
        atomic_write(heldout_path) as heldout_temporary,
        RowWriter(temporary, context_length, dtype, max_rows) as rows,
        pq.ParquetWriter(heldout_temporary, _heldout_schema(dtype), compression="zstd") as heldout,
    ):
        for texts in _chunks(corpus_part):
            if rows.full:
                texts = [text for text in texts if is_heldout(text, heldout_fraction)]
            held_out: dict[str, list] = {"text": [], "tokens": []}
            for text, ids in zip(texts, encode(encoder, texts, end_of_text, dtype), strict=True):
                if is_heldout(text, heldout_fraction):
                    held_out["text"].append(text)
                    held_out["tokens"].append(ids)
                elif not rows.full:
                    rows.add(ids)
                    documents, size = documents + 1, size + len(text.encode("utf-8"))
            if held_out["text"]:
                heldout.write_table(pa.table(held_out, schema=_heldout_schema(dtype)))
    manifest = {
        "file": path.name,
        "rows": rows.rows,
        "tokens": rows.rows * context_length,
        "row_group_rows": rows.row_groups,
        "documents": documents,
        "bytes": size,
        "dropped_tokens": rows.dropped,
        "sha256": sha256_file(path),
        "settings": {
            "context_length": context_length,
            "vocab_size": vocab_size,
            "end_of_text_id": end_of_text,
            "dtype": dtype.name,
            "heldout_fraction": heldout_fraction,
            "tokenizer_sha256": sha256_file(tokenizer / "tokenizer.json"),
        },
        "budget": budget,
        "corpus_sha256": sha256_file(corpus_part),
        "heldout": {"file": heldout_path.name, "sha256": sha256_file(heldout_path)},
    }
    write_json(path.with_suffix(".json"), manifest)
    return manifest


def finish_tokens(out: Path, parts: int, tokenizer: Path) -> dict[str, Any]:
    """Gather the parts of `out` into heldout.parquet and manifest.json; returns the manifest.

    Raises `UserError` when a part is missing or was made with another tokenizer or other settings, when no document is
    held out, and when there is no full row.
    """
    manifests = [read_json(out / f"{part_name(part)}.json") for part in range(parts)]
    settings = manifests[0]["settings"] | {"tokenizer_sha256": sha256_file(tokenizer / "tokenizer.json")}
    for manifest in manifests:
        if manifest["settings"] != settings:
            raise UserError(
                f"{out / manifest['file']}: made with another tokenizer or other settings; tokenise all again"
            )
    heldout = _merge_heldout(out, [manifest["heldout"]["file"] for manifest in manifests], np.dtype(settings["dtype"]))
    rows = sum(manifest["rows"] for manifest in manifests)
    if heldout["documents"] == 0:
        raise UserError(
            f"{out}: no document fell into the held-out part: raise tokens.heldout_fraction "
            f"({settings['heldout_fraction']}, more than 0 and less than 1)"
        )
    if rows == 0:
        raise UserError(f"{out}: the training text does not fill one row of {settings['context_length']} tokens")
    merged = {
        "id": out.name,
        **settings,
        "parts": [{key: manifest[key] for key in _PART_KEYS} for manifest in manifests],
        "rows": rows,
        "tokens": rows * settings["context_length"],
        "heldout": heldout,
    }
    write_json(out / "manifest.json", merged)
    return merged


def _chunks(path: Path) -> Iterator[list[str]]:
    """Documents in order, about a million characters at a time: enough for the tokenizer's threads, little in memory."""
    chunk: list[str] = []
    characters = 0
    for texts in read_texts(path):
        for text in texts:
            chunk.append(text)
            characters += len(text)
            if characters >= _CHUNK_CHARACTERS:
                yield chunk
                chunk, characters = [], 0
    if chunk:
        yield chunk


def _heldout_schema(dtype: np.dtype[Any]) -> pa.Schema:
    """Columns of heldout.parquet: text, and its tokens followed by end-of-text."""
    return pa.schema([("text", pa.string()), ("tokens", pa.list_(pa.from_numpy_dtype(dtype)))])


def _merge_heldout(out: Path, files: list[str], dtype: np.dtype[Any]) -> dict[str, Any]:
    path = out / "heldout.parquet"
    documents = words = size = tokens = 0
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, _heldout_schema(dtype), compression="zstd") as writer,
    ):
        for file in files:
            table = read_table(out / file)
            for text in table.column("text").to_pylist():
                words, size = words + count_words(text), size + len(text.encode("utf-8"))
            tokens += sum(len(ids) for ids in table.column("tokens"))
            documents += table.num_rows
            if table.num_rows:
                writer.write_table(table, row_group_size=256)
    return {
        "file": path.name,
        "rows": documents,
        "documents": documents,
        "words": words,
        "bytes": size,
        "tokens": tokens,
        "sha256": sha256_file(path),
    }


def write_side_text(text: Path, tokenizer: Path, length: int, out: Path) -> None:
    """Write the first `length` tokens of `text` to `out` (Parquet, column `tokens`, one row) for `fixedseqqk`.

    `text` is a corpus part, each of whose documents is followed by end-of-text, or the manifest.json of a token table,
    whose rows are read. Raises `UserError` when there are fewer than `length` tokens.
    """
    found: list[np.ndarray] = []
    for ids in _table_tokens(text) if text.name == "manifest.json" else _document_tokens(text, tokenizer):
        found.append(ids)
        if sum(map(len, found)) >= length:
            break
    tokens = np.concatenate(found)[:length] if found else np.empty(0)
    if len(tokens) < length:
        raise UserError(f"{text}: the side text has {len(tokens)} tokens, but {length} are needed")
    with atomic_write(out) as temporary:
        pq.write_table(pa.table({"tokens": pa.array([tokens])}), temporary)


def _table_tokens(manifest: Path) -> Iterator[np.ndarray]:
    for part in read_json(manifest)["parts"]:
        for batch in read_columns(manifest.parent / part["file"], ["tokens"], 64):
            yield batch.column(0).flatten().to_numpy()


def _document_tokens(part: Path, tokenizer: Path) -> Iterator[np.ndarray]:
    encoder, end_of_text = load_tokenizer(tokenizer)
    for texts in read_texts(part, batch_documents=1):
        yield from encode(encoder, texts, end_of_text, token_dtype(vocabulary_rows(encoder)))
