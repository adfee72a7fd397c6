"""The Parquet schemas of what a run leaves and of what the report keeps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError
from deconattn.evaluation.schema import BASELINES, EVALUATION
from deconattn.files import atomic_write
from deconattn.report import sweep
from deconattn.result_tables import RUN_COLUMNS
from deconattn.training.schema import TRAIN

__all__ = [
    "BASELINES", "CELLS", "EVALUATION", "FINDINGS", "GAPS", "RUNS", "SAMPLES", "TRAIN", "TRAINING", "read_table", "write_table"
]  # fmt: skip


def _text(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


def _whole(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.int64()) for name in names]


def _real(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.float64()) for name in names]


def _word(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.dictionary(pa.int32(), pa.string())) for name in names]


# Of `RUNS`: tokens_per_second leaves out checkpoints and held-out losses; mfu is the mean over the updates, null where
# the device's peak is not known; data_share is the share of the updates' time that was spent waiting for rows; gpu_hours are
# those of each process, on a CPU too; packages are those that training and evaluation recorded, with their versions.
RUNS = pa.schema(
    [
        *RUN_COLUMNS,
        *_whole("layers", "parameters", "tokens", "steps", "context_length"),
        *_whole("max_position_embeddings"),
        ("qk_norm", pa.bool_()),
        *_real("final_train_loss", "final_heldout_loss", "tokens_per_second", "mfu", "data_share", "gpu_hours"),
        *_whole("peak_memory_bytes"),
        *_text("status", "data", "data_sha256", "code", "packages"),
        *sweep.COLUMNS,
    ]
)
TRAINING = pa.schema([*RUN_COLUMNS, *TRAIN, *_whole("steps_averaged")])
SAMPLES = pa.schema(  # what intervals are made of, of the evaluations' own (`evaluation.schema.SAMPLES`)
    [
        *_word("run", "mode", "task"),
        *_whole("context_length", "item"),
        *_word("document"),
        *_real("nll", "value"),
        *_whole("words"),
        ("correct", pa.int8()),
    ]
)
GAPS = pa.schema([*RUN_COLUMNS, *_text("stage", "reason")])
CELLS = pa.schema(  # `text` stands where a cell is words and no number
    [
        *_text("exhibit"),
        *_whole("order"),
        *_text("source", "model", "family", "variant", "layout", "mode", "column", "task", "metric"),
        *_whole("context_length"),
        *_real("value"),
        *_text("text"),
        *_real("stderr"),
        *_text("stderr_of"),
        *_whole("items", "tasks", "seeds", "seeds_planned"),
        *_text("status"),
    ]
)
FINDINGS = pa.schema(  # a row a comparison: left − right, with bounds over documents or items, and over seeds
    [
        *_text("model", "claim", "family", "type", "left", "right", "metric", "text"),
        *_real("margin"),
        *_whole("comparisons"),
        *_real("level", "published", "value"),
        *_text("over"),
        *_real("number", "low", "high", "p"),
        *_whole("seeds"),
        *_real("seeds_value", "seeds_low", "seeds_high"),
        *_text("of_checkpoints", "of_variant", "needed", "settings"),
    ]
)


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a Parquet file as the columns of `schema`, in its order and types.

    Raises `UserError` naming the file and the column when it is no Parquet file or a column is absent or of
    another type. Columns beyond the schema are left out.
    """
    try:
        table = pq.read_table(path)
        table = table.select(schema.names).cast(schema)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except KeyError as error:
        raise UserError(f"{path}: column missing ({error.args[0]}); needed: {', '.join(schema.names)}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path}: not the Parquet table expected here ({str(error).splitlines()[0]})") from None
    # Whole numbers stay whole where some are null.
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def write_table(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> Path:
    """Write the columns of `schema` to Parquet, whole or not at all; columns not in `frame` are null."""
    frame, table = frame.reindex(columns=schema.names), schema.empty_table()
    if not frame.empty:
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False, safe=False).replace_schema_metadata()
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path
