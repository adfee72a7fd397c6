"""The token table on disk: its manifest, its row groups, a small cache, and one window read ahead."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file

_CACHED = 2


class TokenTable:
    """A folder with manifest.json and part-NNNN.parquet, read a set of row groups at a time.

    `rows`, `context_length`, `vocab_size` (the tokenizer's), `end_of_text_id` and `manifest` describe it; `group_rows`
    has the rows of each row group, numbered through all parts. Each page's checksum is verified as it is read; the sha256
    of a part, which would have a training read gigabytes before its first step, is not. At most two sets are held in
    memory, `close` waits for the reader.
    Raises `UserError` in one line that names the file, and the row group, which is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_json(self.folder / "manifest.json")
        self.context_length = int(self.manifest["context_length"])
        self.vocab_size = int(self.manifest["vocab_size"])
        self.end_of_text_id = int(self.manifest["end_of_text_id"])
        self.rows = int(self.manifest["rows"])
        self._parts: list[dict[str, Any]] = self.manifest["parts"]
        self._places = [
            (part, group) for part, entry in enumerate(self._parts) for group in range(len(entry["row_group_rows"]))
        ]
        self.group_rows: tuple[int, ...] = tuple(rows for entry in self._parts for rows in entry["row_group_rows"])
        for entry in self._parts:
            if not (self.folder / entry["file"]).is_file():
                raise UserError(f"{self.folder / entry['file']}: no such file, though manifest.json lists it")
        self._cache: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._at_cache, self._reading = threading.Lock(), threading.Lock()
        self._ahead: threading.Thread | None = None

    def load(self, groups: tuple[int, ...]) -> np.ndarray:
        """The rows of these row groups one after another: (rows, context_length) in the table's own dtype."""
        rows = self._cached(groups)
        if rows is None:
            with self._reading:
                # The background reader may have brought it while this one waited.
                rows = self._cached(groups)
                if rows is None:
                    rows = np.concatenate([self._read(group) for group in groups])
                    self._keep(groups, rows)
        return rows

    def _cached(self, groups: tuple[int, ...]) -> np.ndarray | None:
        with self._at_cache:
            if groups in self._cache:
                self._cache.move_to_end(groups)
            return self._cache.get(groups)

    def _keep(self, groups: tuple[int, ...], rows: np.ndarray) -> None:
        with self._at_cache:
            self._cache[groups] = rows
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)

    def prefetch(self, groups: tuple[int, ...]) -> None:
        """Read these row groups in the background, unless they are at hand or something else is being read."""
        if self._cached(groups) is not None or (self._ahead is not None and self._ahead.is_alive()):
            return
        # Not a daemon: it reads one window and ends, and Python waits for it instead of tearing it down halfway.
        self._ahead = threading.Thread(target=self._load_quietly, args=(groups,), name="token-table-prefetch")
        self._ahead.start()

    def _load_quietly(self, groups: tuple[int, ...]) -> None:
        try:
            self.load(groups)
        except UserError:
            pass  # raised again, where it can be caught, by whoever needs these rows

    def close(self) -> None:
        """Wait for the background reader and let go of the cached rows."""
        if self._ahead is not None:
            self._ahead.join()
        self._cache.clear()

    def __enter__(self) -> TokenTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, index: int) -> np.ndarray:
        part, group = self._places[index]
        entry = self._parts[part]
        path = self.folder / entry["file"]
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if file.num_row_groups != len(entry["row_group_rows"]):
                    raise ValueError(
                        f"{file.num_row_groups} row groups, the manifest lists {len(entry['row_group_rows'])}"
                    )
                column = file.read_row_group(group, columns=["tokens"], use_threads=False).column(0)
            # Through DLPack: `to_numpy` imports pandas, which costs a training a second of start-up.
            flat = np.from_dlpack(column.combine_chunks().flatten())
            return flat.reshape(entry["row_group_rows"][group], self.context_length)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: row group {group} cannot be read ({reason}); tokenise again") from error


def read_tokens(path: Path, sha256: str | None = None) -> pa.Array:
    """The `tokens` column of a small Parquet file, a list a row; `UserError` when it is missing or damaged."""
    if sha256 is not None:
        _verify(path, sha256)
    try:
        return pq.read_table(path, columns=["tokens"], use_threads=False).column(0).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from error


def _verify(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file, though manifest.json lists it")
    if sha256_file(path) != sha256:
        raise UserError(f"{path}: damaged, its sha256 is not the one in manifest.json; tokenise again")
