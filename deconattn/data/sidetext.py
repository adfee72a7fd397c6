"""The fixed token sequence of `fixedseqqk` (SPEC §3): the first tokens of some text, kept as a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data.documents import read_columns, read_texts
from deconattn.data.encoding import encode, token_dtype
from deconattn.data.tokenizer import load_tokenizer
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file


def write_side_text(text: Path | list[Path], tokenizer: Path, length: int, out: Path) -> dict[str, Any]:
    """Write the first `length` tokens of `text` to `out` (Parquet, column `tokens`, one row).

    `text` is Parquet with a column `text` (documents, each followed by end-of-text) or `tokens` (rows of a token
    table), several such files, or a token table's manifest.json, which stands for its parts.
    Returns file, tokens and sha256.
    Raises `UserError` when there are fewer than `length` tokens.
    """
    files = [Path(text)] if isinstance(text, str | Path) else [Path(file) for file in text]
    if files[0].name == "manifest.json":
        files = [files[0].parent / part["file"] for part in read_json(files[0])["parts"]]
    found: list[np.ndarray] = []
    for ids in _tokens(files, tokenizer):
        found.append(ids)
        if sum(map(len, found)) >= length:
            break
    tokens = np.concatenate(found)[:length] if found else np.empty(0, np.uint16)
    if len(tokens) < length:
        raise UserError(f"{files[0]}: the side text has {len(tokens)} tokens, but {length} are needed")
    with atomic_write(out) as temporary:
        pq.write_table(pa.table({"tokens": pa.array([tokens])}), temporary)
    return {"file": Path(out).name, "tokens": length, "sha256": sha256_file(out)}


def _tokens(files: list[Path], tokenizer: Path) -> Iterator[np.ndarray]:
    encoder, end_of_text = load_tokenizer(tokenizer)
    dtype = token_dtype(encoder.get_vocab_size(with_added_tokens=True))
    for file in files:
        if file.is_file() and "text" not in pq.read_schema(file).names:
            for batch in read_columns(file, ["tokens"], 64):
                yield batch.column(0).flatten().to_numpy()
        else:
            for texts in read_texts(file, batch_documents=1):
                yield from encode(encoder, texts, end_of_text, dtype)
