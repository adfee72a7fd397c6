"""Associative recall: sequences of key–value pairs, then of queries, as a token table (docs/recall.md).

A sequence of context length L has P pairs, P drawn from `pairs`, then L/2 − P queries: the key of one of its pairs and, again,
that pair's value, which is the answer. Loss and accuracy are of the last L/2 − max(pairs) answers alone, which stand at the
same positions in all sequences. After multi-query associative recall (Arora et al., 2023, arXiv:2312.04927), where a key is
asked for once; here with replacement, so that there may be more queries than pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data.packing import ROW_GROUP_ROWS, RowWriter
from deconattn.files import atomic_write, sha256_file, write_json

END_OF_TEXT = 0
"""A token that no sequence has; keys are tokens 1 … keys, values the next ones."""


def draw(
    bits: np.random.BitGenerator, count: int, *, pairs: Sequence[int], keys: int, values: int, queries: int
) -> np.ndarray:
    """The next `count` sequences of a stream of random bits: int64 (count, 2·(max(pairs) + queries)).

    Uniform and independent: the number of pairs among `pairs`, the keys (different ones), the value of each, the pair that each
    query asks for. Taken from raw bits, whose stream no version of NumPy changes.
    """
    most = max(pairs)
    raw = bits.random_raw((count, 1 + keys + most + most + queries))
    there = np.array(pairs, np.uint64)[raw[:, :1] % len(pairs)]
    key = raw[:, 1 : 1 + keys].argsort(axis=1, kind="stable")[:, :most]
    value = (raw[:, 1 + keys : 1 + keys + most] % values).astype(np.int64)
    asked = (raw[:, 1 + keys + most :] % there).astype(np.int64)
    place = np.arange(most + queries)
    pair = np.where(place < there.astype(np.int64), place, asked)
    tokens = [np.take_along_axis(key, pair, 1) + 1, np.take_along_axis(value, pair, 1) + 1 + keys]
    return np.stack(tokens, axis=2).reshape(count, -1)


def pairs_of(rows: np.ndarray) -> np.ndarray:
    """The number of pairs of each sequence (N, L): (N,)."""
    keys = np.sort(rows[:, ::2], axis=1)
    return 1 + (keys[:, 1:] != keys[:, :-1]).sum(axis=1)


def distances(rows: np.ndarray) -> np.ndarray:
    """How many pairs back each key of sequences (N, L) was last seen, with its value: (N, L/2), 0 where it was not."""
    keys = rows[:, ::2]
    places = np.arange(keys.shape[1])
    same = (keys[:, :, None] == keys[:, None, :]) & (places < places[:, None])
    last = np.where(same, places, -1).max(axis=2)
    return np.where(last >= 0, places - last, 0)


def write_recall(
    out: Path, recall: dict[str, Any], context_length: int, heldout_fraction: float, budget: int | None
) -> list[str]:
    """Write a token table of `recall` (the settings of the corpus) into `out`; returns the names of its files.

    The first sequences are held out, a share `heldout_fraction` of all; `budget` (tokens) cuts the others. baselines.parquet has
    the accuracy of two guesses on the held-out answers, for each number of pairs: one of all values ("random_guess"), and the
    value of one of the sequence's pairs ("random_pair").
    """
    pairs, keys, values, count = (recall[name] for name in ("pairs", "keys", "values", "sequences"))
    bits, queries = np.random.PCG64(recall["seed"]), context_length // 2 - max(pairs)
    size = 1 + keys + values
    dtype = np.dtype(np.uint16 if size <= 65536 else np.uint32)

    def sequences(number: int) -> np.ndarray:
        return draw(bits, number, pairs=pairs, keys=keys, values=values, queries=queries)

    heldout = sequences(max(1, round(heldout_fraction * count)))
    with atomic_write(out / "heldout.parquet") as temporary:
        pq.write_table(pa.table({"tokens": pa.array([*heldout.astype(dtype)])}), temporary, compression="zstd")
    limit = None if budget is None else budget // context_length
    with (
        atomic_write(out / "part-0000.parquet") as temporary,
        RowWriter(temporary, context_length, dtype, limit) as rows,
    ):
        for start in range(0, count - len(heldout), ROW_GROUP_ROWS):
            if not rows.full:
                rows.add(sequences(min(ROW_GROUP_ROWS, count - len(heldout) - start)).astype(dtype).ravel())
    with atomic_write(out / "baselines.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(_guesses(heldout, queries, values)), temporary)
    part = "part-0000.parquet"
    manifest = {
        "id": out.name,
        "context_length": context_length,
        "vocab_size": size,
        "end_of_text_id": END_OF_TEXT,
        "scored": {"first": 2 * max(pairs) + 1, "step": 2},
        "rows": rows.rows,
        "tokens": rows.rows * context_length,
        "parts": [
            {"file": part, "rows": rows.rows, "row_group_rows": rows.row_groups, "sha256": sha256_file(out / part)}
        ],
        "heldout": {"file": "heldout.parquet", "rows": len(heldout), "sha256": sha256_file(out / "heldout.parquet")},
    }
    write_json(out / "manifest.json", manifest)
    return ["manifest.json", "part-0000.parquet", "heldout.parquet", "baselines.parquet"]


def task_of(pairs: int) -> str:
    """What stands for the task in tables of results: sequences of so many pairs."""
    return f"recall_{pairs}"


def _guesses(rows: np.ndarray, queries: int, values: int) -> list[dict[str, Any]]:
    found = []
    there = pairs_of(rows)
    for pairs in np.unique(there).tolist():
        own = rows[there == pairs, 1::2]
        shown, wanted = own[:, :pairs], own[:, -queries:]
        same = (shown[:, None, :] == wanted[:, :, None]).sum(axis=2) / pairs
        for name, value in (("random_guess", 1 / values), ("random_pair", float(same.mean()))):
            found.append(
                {"baseline": name, "task": task_of(pairs), "metric": "acc", "value": value, "items": wanted.size}
            )
    return found
