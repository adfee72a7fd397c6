"""The analyse stage: a trained model and held-out text in; attention.parquet and scores.parquet out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deconattn.analysis.layers import NotFinite, analyse, check_finite
from deconattn.analysis.schema import ATTENTION, SCORES, with_reason
from deconattn.decoder import Decoder
from deconattn.errors import UserError
from deconattn.files import read_json
from deconattn.load import load_language_model
from deconattn.result_tables import run_columns, write_rows


def analyse_run(
    run_folder: Path, heldout: Path, out_folder: Path, *, context_length: int, sequences: int = 32, device: str = "auto"
) -> tuple[Path, Path]:
    """Write attention.parquet (`schema.ATTENTION`) and scores.parquet (`schema.SCORES`) of a trained run.

    Args:
        run_folder: holds spec.json, record.json and model/.
        heldout: heldout.parquet of the run's tokens.
        out_folder: where to write.
        context_length: positions of a sequence, L.
        sequences: rows of held-out text that indicators are averaged and scores counted over; fewer if there are.
        device: "auto" (a GPU if there is one), "cpu", "cuda".

    For a run that diverged, or whose numbers are not finite, both tables have no rows, and the reason is printed and
    kept in the tables (see `schema`). Layers that do not mix positions have no rows. Returns the two paths.

    Raises:
        UserError: the run is not finished, a file is missing or broken, or the context is too short for the indicators.
    """
    spec = read_json(run_folder / "spec.json")
    attention: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    reason = None
    try:
        if read_json(run_folder / "record.json")["status"] == "diverged":
            raise NotFinite("training diverged")
        decoder = finite_decoder(run_folder / "model", device)
        for layer in analyse(decoder, spread_rows(heldout, context_length, sequences)):
            attention += layer.attention_rows()
            scores += layer.score_rows()
    except NotFinite as error:
        reason = str(error)
        print(f"{run_folder.name}: {reason}; attention.parquet and scores.parquet have no rows", file=sys.stderr)
    identity = {**run_columns(spec), "context_length": context_length}

    def write(rows: list[dict[str, Any]], schema: pa.Schema, name: str) -> Path:
        return write_rows(out_folder / name, [{**identity, **row} for row in rows], with_reason(schema, reason))

    return write(attention, ATTENTION, "attention.parquet"), write(scores, SCORES, "scores.parquet")


def finite_decoder(folder: Path, device: str) -> Decoder:
    """The decoder of a model's folder.

    Raises:
        UserError: as `load_language_model`.
        NotFinite: a weight is not a finite number.
    """
    model = load_language_model(folder, device)
    # The head too, though no map depends on it: a model with a broken head is broken.
    for name, tensor in model.state_dict().items():
        check_finite(tensor, f"weight {name}")
    return model.model


def spread_rows(heldout: Path, context_length: int, sequences: int) -> np.ndarray:
    """Rows (sequences × context_length, int64) of the held-out documents packed one after another.

    The rows lie evenly over the packed text, so that they are not all of one book; where there are fewer, all of them.

    Raises:
        UserError: a file that cannot be read, or less text than one row.
    """
    try:
        packed = pc.list_flatten(pq.read_table(heldout, columns=["tokens"])["tokens"]).to_numpy()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{heldout}: cannot be read ({str(error).splitlines()[0]})") from None
    count = len(packed) // context_length
    if count == 0:
        raise UserError(f"{heldout}: {len(packed)} held-out tokens do not fill one row of {context_length}")
    rows = packed[: count * context_length].reshape(count, context_length)
    wanted = min(sequences, count)
    return rows[np.arange(wanted) * count // wanted].astype(np.int64)
