"""The order of training rows: an endless stream that depends on seed and token table alone, cut into steps.

So all models of one seed read the same batches, and a step's are found without reading those before. Nothing here imports torch.
In each epoch the row groups are permuted, each `WINDOW_GROUPS` of them in turn make a window, and the rows of a window are
permuted among each other. So memory is bounded, every row is visited once per epoch, and a table of one window is fully shuffled.
"""

from __future__ import annotations

import functools

import numpy as np

from deconattn.data.table import TokenTable

WINDOW_GROUPS = 16
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def batch(table: TokenTable, seed: int, step: int, sequences: int, rows: slice = slice(None)) -> np.ndarray:
    """The rows of one step: int64 (sequences, context_length), or only `rows` of them (see `rows_of_rank`).

    Steps count from 0, while logs and train.parquet count updates from 1. Step s takes rows s·sequences …
    (s+1)·sequences − 1 of the endless stream of epochs, so a batch may span windows and epochs. The same (seed, step,
    sequences) always gives the same rows.
    Raises `UserError` when a file of the table is damaged or missing.
    """
    positions = step * sequences + np.arange(sequences, dtype=np.int64)[rows]
    out = np.empty((len(positions), table.context_length), np.int64)
    start = 0
    while start < len(positions):
        epoch, offset = divmod(int(positions[start]), table.rows)
        windows, bounds = _windows(table.group_rows, seed, epoch)
        window = int(np.searchsorted(bounds, offset, side="right")) - 1
        stop = start + int(np.searchsorted(positions[start:], epoch * table.rows + bounds[window + 1]))
        within = positions[start:stop] - epoch * table.rows - bounds[window]
        shuffled = _permutation(int(bounds[window + 1] - bounds[window]), seed, epoch, window)
        out[start:stop] = table.load(windows[window])[shuffled[within]]
        if stop == len(positions):
            last = window + 1 == len(windows)
            table.prefetch(_windows(table.group_rows, seed, epoch + 1)[0][0] if last else windows[window + 1])
        start = stop
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


_permutation = functools.lru_cache(maxsize=4)(permutation)


@functools.lru_cache(maxsize=4)
def _windows(group_rows: tuple[int, ...], seed: int, epoch: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """The row groups of each window of an epoch, and where each begins and the last ends (in rows)."""
    order = permutation(len(group_rows), seed, epoch).tolist()
    windows = [tuple(sorted(order[start : start + WINDOW_GROUPS])) for start in range(0, len(order), WINDOW_GROUPS)]
    sizes = [sum(group_rows[group] for group in groups) for groups in windows]
    return windows, np.cumsum([0, *sizes], dtype=np.int64)


def _splitmix64(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 at each state of `values` (uint64)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(_GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
