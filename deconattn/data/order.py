"""The order of training rows: a pure function of (seed, step) over a token table.

Nothing here imports torch. Rows are read a window of row groups at a time: per epoch the row groups are permuted, each
`WINDOW_GROUPS` of them in turn make a window, and the rows of a window are permuted among each other. So reading is
sequential, memory is bounded, every row is visited once an epoch, and a table of one window is fully shuffled.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from deconattn.data.table import TokenTable, read_tokens
from deconattn.errors import UserError
from deconattn.files import read_json

__all__ = ["TokenTable", "batch", "heldout_rows", "permutation", "rows_of_rank", "side_tokens"]

WINDOW_GROUPS = 16
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def batch(table: TokenTable, seed: int, step: int, sequences: int, rows: slice = slice(None)) -> np.ndarray:
    """The rows of one step: int64 (sequences, context_length), or only `rows` of them (see `rows_of_rank`).

    Steps count from 0: step s takes rows s·sequences … (s+1)·sequences − 1 of the endless stream of epochs, so a batch
    may span windows and epochs. The same (seed, step, sequences) always gives the same rows.
    Raises `UserError` when a file of the table is damaged or missing.
    """
    positions = step * sequences + np.arange(sequences, dtype=np.int64)[rows]
    out = np.empty((len(positions), table.context_length), np.int64)
    start = 0
    epoch = window = 0
    while start < len(positions):
        epoch, offset = divmod(int(positions[start]), table.rows)
        groups, bounds = _epoch_windows(table.group_rows, seed, epoch)
        window = int(np.searchsorted(bounds, offset, side="right")) - 1
        end_of_window = epoch * table.rows + int(bounds[window + 1])
        stop = start + int(np.searchsorted(positions[start:], end_of_window))
        within = positions[start:stop] - epoch * table.rows - bounds[window]
        shuffled = _window_permutation(int(bounds[window + 1] - bounds[window]), seed, epoch, window)
        out[start:stop] = table.load(groups[window])[shuffled[within]]
        start = stop
    if len(positions):
        table.prefetch(_next_window(table, seed, epoch, window))
    return out


def rows_of_rank(sequences: int, rank: int, processes: int) -> slice:
    """The rows of a batch that process `rank` takes: contiguous, all rows once, sizes differ by at most one."""
    share, longer = divmod(sequences, processes)
    start = rank * share + min(rank, longer)
    return slice(start, start + share + (rank < longer))


def permutation(count: int, *key: int) -> np.ndarray:
    """A permutation of 0 … count−1 (int64), a function of `key` alone.

    The indices are sorted by their SplitMix64 values (Steele et al., 2014), which no version of a library can change.
    """
    state = 0
    for value in key:
        state = int(_splitmix64(np.array([(state ^ value) & _MASK], np.uint64))[0])
    return np.argsort(_splitmix64(np.arange(count, dtype=np.uint64) ^ np.uint64(state)), kind="stable")


def heldout_rows(folder: Path, context_length: int, limit_documents: int | None = None) -> np.ndarray:
    """The first `limit_documents` (None: all) held-out documents packed into rows: int64 (rows, context_length).

    Documents follow each other as in training, each with its end-of-text; the tail that fills no row is dropped.
    """
    entry = read_json(Path(folder) / "manifest.json")["heldout"]
    documents = read_tokens(Path(folder) / entry["file"], entry["sha256"])
    tokens = np.from_dlpack(documents.slice(0, limit_documents).flatten())
    rows = len(tokens) // context_length
    if rows == 0:
        raise UserError(f"{folder}: the held-out documents do not fill one row of {context_length} tokens")
    return tokens[: rows * context_length].reshape(rows, context_length).astype(np.int64)


def side_tokens(path: Path) -> np.ndarray:
    """The fixed token sequence for `fixedseqqk` out of a side.parquet: int64 (side_length,)."""
    return np.from_dlpack(read_tokens(Path(path)).flatten()).astype(np.int64)


@functools.lru_cache(maxsize=4)
def _epoch_windows(group_rows: tuple[int, ...], seed: int, epoch: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """The row groups of each window of an epoch, and where each begins and the last ends (in rows)."""
    order = permutation(len(group_rows), seed, epoch)
    windows = [
        tuple(sorted(int(group) for group in order[start : start + WINDOW_GROUPS]))
        for start in range(0, len(order), WINDOW_GROUPS)
    ]
    sizes = [sum(group_rows[group] for group in groups) for groups in windows]
    return windows, np.cumsum([0, *sizes], dtype=np.int64)


@functools.lru_cache(maxsize=4)
def _window_permutation(rows: int, seed: int, epoch: int, window: int) -> np.ndarray:
    return permutation(rows, seed, epoch, window)


def _next_window(table: TokenTable, seed: int, epoch: int, window: int) -> tuple[int, ...]:
    groups, _ = _epoch_windows(table.group_rows, seed, epoch)
    if window + 1 < len(groups):
        return groups[window + 1]
    return _epoch_windows(table.group_rows, seed, epoch + 1)[0][0]


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 at each state of `values` (uint64)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(_GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
