"""The tables that the analysis of a run and the measurement of costs leave. Nothing here imports torch.

The tables of a run that diverged, or whose numbers are not finite, have no rows, never zeros, and the metadata of their
schema holds the reason. Those of a run without attention maps have neither rows nor a reason.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.analysis.histogram import QUANTILES
from deconattn.result_tables import RUN_COLUMNS

_REASON = b"empty_because"
_LAYER = [
    *RUN_COLUMNS,
    ("context_length", pa.int64()),
    ("sequences", pa.int64()),  # maps that went into the value; 1 where one map serves every sequence
    ("layer", pa.int64()),  # from 1
    ("standard", pa.bool_()),  # whether this layer keeps standard attention
]
ATTENTION = pa.schema(
    [
        *_LAYER,
        ("head", pa.int64()),  # from 1; null for head_diversity, which belongs to the layer
        ("indicator", pa.string()),
        ("value", pa.float64()),  # raw, mean over sequences; entropy in nats
    ]
)
SCORES = pa.schema(
    [
        *_LAYER,
        ("bin_low", pa.float64()),  # one of `histogram.bounds()`; a bin that is not there holds no score
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
_MIXER = [
    ("model", pa.string()),
    ("variant", pa.string()),
    ("batch", pa.int64()),  # rows that are mixed
    ("length", pa.int64()),
]
COSTS = pa.schema(
    [
        *_MIXER,
        # The shape of the one mixer
        ("hidden_size", pa.int64()),
        ("heads", pa.int64()),
        ("key_value_heads", pa.int64()),
        ("inner_width", pa.int64()),  # of mlp; null for the others
        ("parameters", pa.int64()),
        # Our formulas: `deconattn.costs.Costs`
        ("prefill_flops_square", pa.int64()),
        ("prefill_flops_causal", pa.int64()),
        ("prefill_flops", pa.int64()),
        ("decode_flops", pa.int64()),
        ("state_bytes", pa.int64()),  # float32
        ("state_bytes_bf16", pa.int64()),
        # What the paper prints; null for a variant that it does not have
        ("printed_prefill_flops", pa.int64()),
        ("printed_decode_flops", pa.int64()),
        ("printed_cache_bytes", pa.int64()),
        # Counted by FlopCounterMode on the meta device
        ("counted_prefill_flops", pa.int64()),
        ("counted_decode_flops", pa.int64()),
        # Measured, float32 unless named otherwise; null with a `reason`
        ("held_activation_bytes", pa.int64()),  # storages saved for backward
        ("peak_bytes", pa.int64()),  # forward and backward, above weights and inputs
        ("held_state_bytes", pa.int64()),
        ("held_state_bytes_bf16", pa.int64()),
        ("training_ms", pa.float64()),  # forward and backward, milliseconds a token; median
        ("training_repeats", pa.int64()),
        ("decode_ms", pa.float64()),  # one token more in every row, milliseconds; median
        ("decode_repeats", pa.int64()),
        ("reason", pa.string()),  # why nothing was measured; null where it was
        ("device", pa.string()),
        ("threads", pa.int64()),  # null on a GPU
        ("torch", pa.string()),
    ]
)
DIFFERENCES = pa.schema(
    [
        *_MIXER,
        ("quantity", pa.string()),  # a column of our formulas; state_bytes at 2 bytes a number
        ("name", pa.string()),
        ("sentence", pa.string()),
        ("amount", pa.int64()),  # the printed value and all amounts add up to ours
    ]
)

RUN_COSTS = pa.schema(
    [
        *RUN_COLUMNS,
        (
            "training_flops",
            pa.float64(),
        ),  # of the whole training: `deconattn.costs.training_flops`; beyond int64 for large models
        ("state_bytes", pa.int64()),  # that decoding holds of one sequence of `context_length` tokens, 2 bytes a number
        ("context_length", pa.int64()),  # of training, in tokens
    ]
)


def with_reason(schema: pa.Schema, reason: str | None) -> pa.Schema:
    """`schema`, with the reason why a table has no rows in its metadata (None: `schema` itself)."""
    return schema if reason is None else schema.with_metadata({_REASON: reason.encode()})


def reason_of(path: Path) -> str | None:
    """Why the table at `path` has no rows; None where no reason is kept."""
    metadata = pq.read_schema(path).metadata or {}
    return metadata[_REASON].decode() if _REASON in metadata else None
