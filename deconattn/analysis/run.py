"""The analyse stage: a trained model and held-out text in; attention.parquet and scores.parquet out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.analysis.heldout import spread_rows
from deconattn.analysis.indicators import MINIMUM_LENGTH
from deconattn.analysis.layers import analyse
from deconattn.analysis.load import NotFinite, load_decoder
from deconattn.analysis.schema import ATTENTION, SCORES, with_reason
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json


def analyse_run(
    run_folder: Path,
    heldout: Path,
    *,
    context_length: int,
    sequences: int = 32,
    device: str = "auto",
    out_folder: Path | None = None,
) -> tuple[Path, Path]:
    """Write attention.parquet (`schema.ATTENTION`) and scores.parquet (`schema.SCORES`) of a trained run.

    Args:
        run_folder: holds spec.json, done.json and model/.
        heldout: heldout.parquet of the run's tokens.
        context_length: positions of a sequence, L.
        sequences: rows of held-out text that indicators are averaged and scores counted over; fewer if there are.
        device: "auto" (a GPU if there is one), "cpu", "cuda".
        out_folder: where to write; the run's folder if not said.

    A run that diverged, or whose numbers are not finite, leaves both tables without rows and says why on standard
    error and in the tables (see `schema`); layers that do not mix positions have no rows. Returns the two paths.

    Raises:
        UserError: the run is not finished, a file is missing or broken, or a number does not fit the model.
    """
    run_folder = Path(run_folder)
    out_folder = Path(out_folder or run_folder)
    spec, done = read_json(run_folder / "spec.json"), read_json(run_folder / "done.json")
    attention: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    reason = None
    try:
        if done["status"] == "diverged":
            raise NotFinite("training diverged")
        for layer in analyse(*_load(run_folder, Path(heldout), context_length, sequences, device)):
            attention += layer.attention_rows()
            scores += layer.score_rows()
    except NotFinite as error:
        reason = str(error)
        print(f"{run_folder.name}: {reason}; attention.parquet and scores.parquet have no rows", file=sys.stderr)
    model = spec["model"]
    identity = {"run": spec["run"], "model": model["name"], "variant": model["variant"], "layout": model["layout"]}
    identity |= {"seed": spec["seed"], "context_length": context_length}
    return (
        _write(attention, with_reason(ATTENTION, reason), identity, out_folder / "attention.parquet"),
        _write(scores, with_reason(SCORES, reason), identity, out_folder / "scores.parquet"),
    )


def _load(run_folder: Path, heldout: Path, context_length: int, sequences: int, device: str) -> tuple[Any, Any]:
    """The decoder and the rows of text; `UserError` for numbers that do not fit it."""
    decoder = load_decoder(run_folder / "model", device)
    limit, vocabulary = decoder.config.max_position_embeddings, decoder.config.vocab_size
    for name, value, least, most in (
        ("context length", context_length, MINIMUM_LENGTH, limit),
        ("number of sequences", sequences, 1, None),
    ):
        if value < least or (most is not None and value > most):
            allowed = f"{least} to {most}" if most else f"{least} or more"
            raise UserError(f"{run_folder.name}: {name} {value} does not fit; allowed: {allowed}")
    rows = spread_rows(heldout, context_length, sequences)
    if int(rows.max()) >= vocabulary:
        raise UserError(f"{heldout}: token {int(rows.max())} is beyond the model's vocabulary of {vocabulary}")
    return decoder, rows


def _write(rows: list[dict[str, Any]], schema: pa.Schema, identity: dict[str, Any], path: Path) -> Path:
    with atomic_write(path) as temporary:
        table = pa.Table.from_pylist([{**identity, **row} for row in rows], schema=schema)
        pq.write_table(table, temporary, compression="zstd")
    return path
