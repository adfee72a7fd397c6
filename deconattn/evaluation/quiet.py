"""What every use of the harness has around it: no network, no chatter, rows written whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.files import atomic_write

# No look-up on a hub, and no progress bars in a job's log.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def offline() -> None:
    """Take the network from the harness' libraries, and its chatter from the log. Call it before importing them."""
    os.environ.update(ENVIRONMENT)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, whole or not at all."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
