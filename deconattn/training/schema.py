"""Columns of train.parquet: a row an update. Imports no torch: the report reads it too."""

from __future__ import annotations

import pyarrow as pa

TRAIN = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens", pa.int64()),
        ("tokens_per_second", pa.float64()),
        ("seconds", pa.float64()),
        ("heldout_loss", pa.float64()),
    ]
)
