"""The two tables that the analysis of a run leaves. Nothing here imports torch.

A run that diverged, or whose numbers are not finite, leaves tables without rows, never zeros, and says why in the
metadata of their schema; one that has no attention map leaves tables without rows and without a reason.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.analysis.bins import QUANTILES

_REASON = b"empty_because"
_PLACE = [
    ("run", pa.string()),
    ("model", pa.string()),
    ("variant", pa.string()),
    ("layout", pa.string()),
    ("seed", pa.int64()),
    ("context_length", pa.int64()),
    ("sequences", pa.int64()),  # maps that went into the value; 1 where one map serves every sequence
    ("layer", pa.int64()),  # from 1
    ("standard", pa.bool_()),  # whether this layer keeps standard attention
]
ATTENTION = pa.schema(
    [
        *_PLACE,
        ("head", pa.int64()),  # from 1; null for head_diversity, which belongs to the layer
        ("indicator", pa.string()),
        ("value", pa.float64()),  # raw, mean over sequences; entropy in nats
    ]
)
SCORES = pa.schema(
    [
        *_PLACE,
        ("bin_low", pa.float64()),  # one of `bins.bounds()`; a bin that is not there holds no score
        ("bin_high", pa.float64()),
        ("count", pa.int64()),
        # Of the whole layer, the same on each of its rows:
        ("total", pa.int64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("share_beyond_1000", pa.float64()),
        *((name, pa.float64()) for name in QUANTILES),
    ]
)


def with_reason(schema: pa.Schema, reason: str | None) -> pa.Schema:
    """The schema of a table that has no rows for this reason (None: the schema as it is)."""
    return schema if reason is None else schema.with_metadata({_REASON: reason.encode()})


def reason_of(path: Path) -> str | None:
    """Why the table at `path` has no rows, if it says so."""
    metadata = pq.read_schema(path).metadata or {}
    return metadata[_REASON].decode() if _REASON in metadata else None
