"""The Parquet schemas of what a run leaves and of what the report keeps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.errors import UserError
from deconattn.evaluation.schema import BASELINES, EVALUATION, RUN_COLUMNS
from deconattn.files import atomic_write
from deconattn.training.schema import TRAIN

__all__ = ["BASELINES", "CELLS", "EVALUATION", "GAPS", "RUNS", "TRAIN", "TRAINING", "read_table", "write_table"]

TRAINING = pa.schema([*RUN_COLUMNS, *TRAIN, ("steps_averaged", pa.int64())])
RUNS = pa.schema(
    [
        *RUN_COLUMNS,
        ("layers", pa.int64()),
        ("parameters", pa.int64()),
        ("tokens", pa.int64()),
        ("steps", pa.int64()),
        ("context_length", pa.int64()),
        ("final_train_loss", pa.float64()),
        ("final_heldout_loss", pa.float64()),
        ("tokens_per_second", pa.float64()),  # over the training, checkpoints and held-out losses aside
        ("mfu", pa.float64()),  # mean over the updates; null where the device's peak is not known
        ("data_share", pa.float64()),  # of the time of the updates, spent waiting for rows
        ("peak_memory_bytes", pa.int64()),
        ("status", pa.string()),
        ("data", pa.string()),
        ("data_sha256", pa.string()),
        ("code", pa.string()),
        ("packages", pa.string()),  # with their versions, as the run's training and evaluation recorded them
    ]
)
GAPS = pa.schema([*RUN_COLUMNS, ("stage", pa.string()), ("reason", pa.string())])
CELLS = pa.schema(
    [
        ("exhibit", pa.string()),
        ("order", pa.int64()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("family", pa.string()),
        ("variant", pa.string()),
        ("layout", pa.string()),
        ("mode", pa.string()),
        ("column", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("context_length", pa.int64()),
        ("value", pa.float64()),
        ("text", pa.string()),  # where a cell is words and no number
        ("stderr", pa.float64()),
        ("stderr_of", pa.string()),
        ("items", pa.int64()),
        ("tasks", pa.int64()),
        ("seeds", pa.int64()),
        ("seeds_planned", pa.int64()),
        ("status", pa.string()),
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
    return table.to_pandas(types_mapper=_nullable)


def write_table(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> Path:
    """Write the columns of `schema` to Parquet, whole or not at all; columns not in `frame` are null."""
    frame = frame.reindex(columns=schema.names)
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False, safe=False).replace_schema_metadata()
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def _nullable(kind: pa.DataType) -> object:
    """Keep whole numbers whole where some are null."""
    return pd.Int64Dtype() if pa.types.is_integer(kind) else None
