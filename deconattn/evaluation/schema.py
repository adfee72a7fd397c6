"""Columns of evaluation.parquet, samples.parquet and baselines.parquet. Imports no torch: the report reads them too."""

from __future__ import annotations

import pyarrow as pa

RUN_COLUMNS = [
    ("run", pa.string()),
    ("model", pa.string()),
    ("variant", pa.string()),
    ("layout", pa.string()),
    ("seed", pa.int64()),
]
EVALUATION = pa.schema(
    [
        *RUN_COLUMNS,
        ("mode", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("context_length", pa.int64()),
        ("value", pa.float64()),
        ("stderr", pa.float64()),
        ("items", pa.int64()),
        ("limit", pa.int64()),
    ]
)
SAMPLES = pa.schema(
    [
        ("run", pa.string()),
        ("mode", pa.string()),
        ("task", pa.string()),
        ("context_length", pa.int64()),
        ("item", pa.int64()),
        ("target", pa.string()),
        ("prediction", pa.string()),
        ("correct", pa.bool_()),
        ("loglikelihoods", pa.list_(pa.float64())),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)
BASELINES = pa.schema(
    [
        ("baseline", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("items", pa.int64()),
    ]
)
