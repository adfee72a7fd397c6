"""The analyse stage: a trained model and held-out text in; attention.parquet and scores.parquet out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deconattn.analysis.layers import NotFinite, analyse, check_finite
from deconattn.analysis.schema import ATTENTION, SCORES, with_reason
from deconattn.data.table import heldout_rows
from deconattn.files import read_json
from deconattn.load import load_language_model
from deconattn.result_tables import run_columns, write_rows


def analyse_run(
    run_folder: Path, tokens: Path, out_folder: Path, *, context_length: int, sequences: int = 32, device: str = "auto"
) -> tuple[Path, Path]:
    """Write attention.parquet (`schema.ATTENTION`) and scores.parquet (`schema.SCORES`) of a trained run.

    Args:
        run_folder: holds spec.json, record.json and model/.
        tokens: the token table that the run was trained on.
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
        model = load_language_model(run_folder / "model", device)
        # The head too, though no map depends on it: a model with a broken head is broken.
        for name, tensor in model.state_dict().items():
            check_finite(tensor, f"weight {name}")
        for layer in analyse(model.model, spread(heldout_rows(tokens, context_length), sequences)):
            attention += layer.attention_rows()
            scores += layer.score_rows()
    except NotFinite as error:
        reason = str(error)
        print(f"{run_folder.name}: {reason}; attention.parquet and scores.parquet have no rows", file=sys.stderr)
    identity = {**run_columns(spec), "context_length": context_length}

    def write(rows: list[dict[str, Any]], schema: pa.Schema, name: str) -> Path:
        return write_rows(out_folder / name, [{**identity, **row} for row in rows], with_reason(schema, reason))

    return write(attention, ATTENTION, "attention.parquet"), write(scores, SCORES, "scores.parquet")


def spread(rows: np.ndarray, wanted: int) -> np.ndarray:
    """So many of the rows, lying evenly over all of them, so that they are not all of one book; where there are fewer, all."""
    wanted = min(wanted, len(rows))
    return rows[np.arange(wanted) * len(rows) // wanted]
