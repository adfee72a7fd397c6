"""Rows of real held-out text for the analysis, spread over all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError

BATCH_DOCUMENTS = 256


def spread_rows(heldout: Path, context_length: int, sequences: int) -> np.ndarray:
    """`sequences` rows (int64, sequences × context_length) of the held-out documents packed one after another.

    The rows lie evenly over the packed text, so that they are not all of one book; where there are fewer, all of
    them. The file is read in pieces, twice: for the number of tokens, then for the rows.

    Raises:
        UserError: no such file, not a table of tokens, or less text than one row.
    """
    total = sum(len(piece) for piece in _pieces(heldout))
    rows = total // context_length
    if rows == 0:
        raise UserError(f"{heldout}: {total} held-out tokens do not fill one row of {context_length}")
    wanted = np.arange(min(sequences, rows)) * rows // min(sequences, rows)
    starts = wanted * context_length
    out = np.empty((len(starts), context_length), np.int64)
    begin = 0
    for piece in _pieces(heldout):
        end = begin + len(piece)
        for row in np.flatnonzero((starts < end) & (starts + context_length > begin)):
            low, high = max(starts[row], begin), min(starts[row] + context_length, end)
            out[row, low - starts[row] : high - starts[row]] = piece[low - begin : high - begin]
        begin = end
    return out


def _pieces(heldout: Path) -> Iterator[np.ndarray]:
    try:
        with pq.ParquetFile(heldout) as file:
            for batch in file.iter_batches(BATCH_DOCUMENTS, columns=["tokens"], use_threads=False):
                yield batch.column("tokens").flatten().to_numpy()
    except FileNotFoundError:
        raise UserError(f"{heldout}: no such file") from None
    except (KeyError, AttributeError, pa.ArrowException) as error:
        raise UserError(f"{heldout}: not a table with a list column `tokens` ({str(error).splitlines()[0]})") from None
