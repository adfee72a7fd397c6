"""The tables that `measure` leaves. Nothing here imports torch."""

from __future__ import annotations

import pyarrow as pa

_PLACE = [
    ("model", pa.string()),
    ("variant", pa.string()),
    ("batch", pa.int64()),  # rows that are mixed
    ("length", pa.int64()),
]
COSTS = pa.schema(
    [
        *_PLACE,
        # The shape of the one mixer
        ("hidden_size", pa.int64()),
        ("heads", pa.int64()),
        ("key_value_heads", pa.int64()),
        ("inner_width", pa.int64()),  # of mlp; null for the others
        ("parameters", pa.int64()),
        # Our formulas: `deconattn.mixers._costs.Costs`
        ("prefill_flops_square", pa.int64()),
        ("prefill_flops_causal", pa.int64()),
        ("prefill_flops", pa.int64()),
        ("decode_flops", pa.int64()),
        ("activation_bytes", pa.int64()),  # float32 on a CPU
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
        *_PLACE,
        ("quantity", pa.string()),  # a column of our formulas; state_bytes at 2 bytes a number
        ("name", pa.string()),
        ("sentence", pa.string()),
        ("amount", pa.int64()),  # the printed value and all amounts add up to ours
    ]
)
