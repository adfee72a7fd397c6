"""Corpus parts → the token table: documents joined by end-of-text, packed into rows of the context length.

One job a part (`tokenize_part`), then one that gathers them (`finish_tokens`). What is written for a part depends on
that part, the tokenizer and the settings only, so the jobs may run in any order and number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data.documents import part_name, part_number, read_texts
from deconattn.data.encoding import encode, token_dtype
from deconattn.data.heldout import count_words, is_heldout
from deconattn.data.packing import RowWriter
from deconattn.data.tokenizer import load_tokenizer
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

_CHUNK_CHARACTERS = 1 << 20


def share_of_budget(budget: int | None, part: int, parts: int) -> int | None:
    """Tokens that part `part` of `parts` may hold, so that all together hold `budget`."""
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
    budget // context_length rows; held-out documents are gathered from the whole part all the same.
    Returns the part's manifest. Raises `UserError` for files that cannot be read.
    """
    corpus_part, out = Path(corpus_part), Path(out)
    number = part_number(corpus_part)
    encoder, end_of_text = load_tokenizer(tokenizer)
    vocab_size = encoder.get_vocab_size(with_added_tokens=True)
    dtype = token_dtype(vocab_size)
    path, heldout_path = out / f"{part_name(number)}.parquet", out / f"heldout-{number:04d}.parquet"
    documents = size = 0
    with atomic_write(path) as temporary, atomic_write(heldout_path) as heldout_temporary:
        with (
            RowWriter(temporary, context_length, dtype, None if budget is None else budget // context_length) as rows,
            pq.ParquetWriter(heldout_temporary, heldout_schema(dtype), compression="zstd") as heldout,
        ):
            for texts in _chunks(corpus_part):
                sides = [is_heldout(text, heldout_fraction) for text in texts]
                kept = [(text, side) for text, side in zip(texts, sides, strict=True) if side or not rows.full]
                apart: list[tuple[str, np.ndarray]] = []
                for (text, side), ids in zip(
                    kept, encode(encoder, [text for text, _ in kept], end_of_text, dtype), strict=True
                ):
                    if side:
                        apart.append((text, ids))
                    elif not rows.full:
                        rows.add(ids)
                        documents, size = documents + 1, size + len(text.encode("utf-8"))
                if apart:
                    heldout.write_table(_heldout_table(apart, dtype))
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
            "tokenizer_sha256": sha256_file(Path(tokenizer) / "tokenizer.json"),
        },
        "budget": budget,
        "corpus_sha256": sha256_file(corpus_part),
        "heldout": {"file": heldout_path.name, "sha256": sha256_file(heldout_path)},
    }
    write_json(out / f"{part_name(number)}.json", manifest)
    return manifest


def finish_tokens(out: Path, parts: int, tokenizer: Path) -> dict[str, Any]:
    """Gather the parts of `out` into heldout.parquet and manifest.json; returns the manifest.

    Raises `UserError` when a part is missing or was made with other settings, when no document is held out, and when
    there is no full row.
    """
    out = Path(out)
    manifests = [read_json(out / f"{part_name(part)}.json") for part in range(parts)]
    settings = manifests[0]["settings"]
    if settings["tokenizer_sha256"] != sha256_file(Path(tokenizer) / "tokenizer.json"):
        raise UserError(f"{out}: its parts were made with another tokenizer than {tokenizer}")
    for manifest in manifests:
        if manifest["settings"] != settings:
            raise UserError(f"{out / manifest['file']}: made with other settings than part 0; tokenise all parts again")
    dtype = np.dtype(settings["dtype"])
    heldout = _merge_heldout(out, [manifest["heldout"]["file"] for manifest in manifests], dtype)
    rows = sum(manifest["rows"] for manifest in manifests)
    if heldout["documents"] == 0:
        raise UserError(
            f"{out}: no document fell into the held-out part: raise tokens.heldout_fraction "
            f"({settings['heldout_fraction']}, more than 0 and less than 1)"
        )
    if rows == 0:
        raise UserError(f"{out}: the training text does not fill one row of {settings['context_length']} tokens")
    kept = (
        "file",
        "rows",
        "tokens",
        "sha256",
        "row_group_rows",
        "documents",
        "bytes",
        "dropped_tokens",
        "budget",
    )
    merged = {
        "id": out.name,
        **settings,
        "parts": [{key: manifest[key] for key in kept} for manifest in manifests],
        "rows": rows,
        "tokens": rows * settings["context_length"],
        "heldout": heldout,
    }
    write_json(out / "manifest.json", merged)
    return merged


def _chunks(path: Path) -> Iterator[list[str]]:
    """Documents in order, about a million characters at a time: enough to keep the tokenizer's threads busy."""
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


def heldout_schema(dtype: np.dtype[Any]) -> pa.Schema:
    """Columns of heldout.parquet: text, and its tokens followed by end-of-text."""
    return pa.schema([("text", pa.string()), ("tokens", pa.list_(pa.from_numpy_dtype(dtype)))])


def _heldout_table(documents: list[tuple[str, np.ndarray]], dtype: np.dtype[Any]) -> pa.Table:
    texts = pa.array([text for text, _ in documents], pa.string())
    return pa.table([texts, _lists([ids for _, ids in documents], dtype)], schema=heldout_schema(dtype))


def _lists(arrays: list[np.ndarray], dtype: np.dtype[Any]) -> pa.ListArray:
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(arrays), pa.from_numpy_dtype(dtype)))


def _merge_heldout(out: Path, files: list[str], dtype: np.dtype[Any]) -> dict[str, Any]:
    path = out / "heldout.parquet"
    documents = words = size = tokens = 0
    with atomic_write(path) as temporary:
        with pq.ParquetWriter(temporary, heldout_schema(dtype), compression="zstd") as writer:
            for file in files:
                if not (out / file).is_file():
                    raise UserError(f"{out / file}: no such file")
                table = pq.read_table(out / file, schema=heldout_schema(dtype))
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
