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
        ("heldout_loss", pa.float64()),
        # From here on what a clock or a gauge said: it differs between two trainings that are the same.
        ("tokens_per_second", pa.float64()),
        ("seconds", pa.float64()),  # of training so far, over all attempts
        ("data_seconds", pa.float64()),  # of this update, waiting for its rows
        ("mfu", pa.float64()),  # model FLOPs a second over the devices' peak; null where the peak is not known
        ("peak_memory_bytes", pa.int64()),  # of process 0 so far: of its GPU, else of the process
    ]
)
MEASURED = ("tokens_per_second", "seconds", "data_seconds", "mfu", "peak_memory_bytes")
"""Columns that are measured; all others are a function of the spec and the tokens."""
