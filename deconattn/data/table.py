"""What a training reads: the token table, a window of row groups at a time, the held-out rows, the side text."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data.documents import read_table
from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file

_WINDOWS_HELD = 2


class TokenTable:
    """A folder with manifest.json and part-NNNN.parquet, read a window (a set of row groups) at a time.

    `rows`, `context_length`, `vocab_size` (the tokenizer's) and `end_of_text_id` describe it; `scored` says which targets, the
    tokens from position 1 on, count in the loss; `group_rows` has the rows of each row group, numbered through all parts.
    The checksum of each page is verified as it is read; the sha256 of a part is not, as that would read gigabytes before the
    first step. One background thread reads, and at most two windows are held in memory.
    Raises `UserError` in one line that names the missing or damaged file and the row group.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest: dict[str, Any] = read_json(self.folder / "manifest.json")
        self.context_length = int(manifest["context_length"])
        self.vocab_size = int(manifest["vocab_size"])
        self.end_of_text_id = int(manifest["end_of_text_id"])
        scored = manifest.get("scored", {"first": 1, "step": 1})
        self.scored = slice(scored["first"] - 1, self.context_length - 1, scored["step"])
        self.rows = int(manifest["rows"])
        for part in manifest["parts"]:
            if not (self.folder / part["file"]).is_file():
                raise UserError(f"{self.folder / part['file']}: no such file, though manifest.json lists it")
        self._groups = [(part, group) for part in manifest["parts"] for group in range(len(part["row_group_rows"]))]
        self.group_rows: tuple[int, ...] = tuple(part["row_group_rows"][group] for part, group in self._groups)
        self._reader = ThreadPoolExecutor(1, "token-table")
        self._windows: OrderedDict[tuple[int, ...], Future[np.ndarray]] = OrderedDict()

    def load(self, groups: tuple[int, ...]) -> np.ndarray:
        """The rows of these row groups one after another: (rows, context_length) in the table's own dtype."""
        self.prefetch(groups)
        return self._windows[groups].result()

    def prefetch(self, groups: tuple[int, ...]) -> None:
        """Read these row groups in the background; `load` raises the error if that fails."""
        if groups not in self._windows:
            self._windows[groups] = self._reader.submit(self._read, groups)
        self._windows.move_to_end(groups)
        while len(self._windows) > _WINDOWS_HELD:
            self._windows.popitem(last=False)

    def close(self) -> None:
        """Wait for the background reader and release the rows."""
        self._reader.shutdown()
        self._windows.clear()

    def __enter__(self) -> TokenTable:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, groups: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([self._read_group(*self._groups[index]) for index in groups])

    def _read_group(self, part: dict[str, Any], group: int) -> np.ndarray:
        path, expected = self.folder / part["file"], part["row_group_rows"]
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if file.num_row_groups != len(expected):
                    raise ValueError(f"{file.num_row_groups} row groups, the manifest lists {len(expected)}")
                column = file.read_row_group(group, columns=["tokens"], use_threads=False).column(0)
            return _values(column).reshape(expected[group], self.context_length)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: row group {group} cannot be read ({reason}); tokenise again") from error


def heldout_rows(folder: Path, context_length: int, limit_documents: int | None = None) -> np.ndarray:
    """The first `limit_documents` (None: all) held-out documents packed into rows: int64 (rows, context_length).

    Documents follow each other as in training, each with its end-of-text; the tail that fills no row is dropped.
    Raises `UserError` when the file is missing or damaged, or fills no row.
    """
    entry = read_json(folder / "manifest.json")["heldout"]
    path = folder / entry["file"]
    if not path.is_file() or sha256_file(path) != entry["sha256"]:
        raise UserError(f"{path}: missing or damaged (its sha256 is not the one in manifest.json); tokenise again")
    tokens = _values(read_table(path, ["tokens"]).column(0).slice(0, limit_documents))
    rows = len(tokens) // context_length
    if rows == 0:
        raise UserError(f"{folder}: the held-out documents do not fill one row of {context_length} tokens")
    return tokens[: rows * context_length].reshape(rows, context_length).astype(np.int64)


def side_tokens(path: Path) -> np.ndarray:
    """The fixed token sequence for `fixedseqqk` out of a side.parquet: int64 (side_length,)."""
    return _values(read_table(path, ["tokens"]).column(0)).astype(np.int64)


def _values(lists: pa.ChunkedArray) -> np.ndarray:
    # Through DLPack, since `to_numpy` imports pandas, which costs a training a second of start-up.
    return np.from_dlpack(lists.combine_chunks().flatten())
