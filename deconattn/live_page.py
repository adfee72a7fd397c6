"""The page of a grid that still runs: how far each run is, its curve so far, and the exhibits that are there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from deconattn.experiment.artefact import Artefact
from deconattn.experiment.identity import Identity
from deconattn.experiment.record import CURVE, is_done
from deconattn.report.page import page_curves, write_page
from deconattn.status import Status, statuses


def write_live_page(ident: Identity) -> Path:
    """Write `live.html` beside the report of a configuration; returns its path."""
    found = dict(zip(ident.runs, statuses(ident), strict=True))
    runs = [
        {"model": run.model, "variant": run.variant, "layout": run.layout, "seed": run.seed, **_row(status)}
        for run, status in found.items()
    ]
    lengths = {run: ident.settings.tokens_of(run.model).context_length for run in found}
    training = [_curve(ident.trainings[run], lengths[run], row) for run, row in zip(found, runs, strict=True)]
    training = [curve for curve in training if len(curve)]
    exhibits = {name: one.folder for name, one in ident.exhibits.items() if is_done(one.folder)}
    curves = page_curves(pd.concat(training)) if training else []
    there = f"{len(exhibits)} of {len(ident.exhibits)} exhibits are there"
    note = f"The grid as it was on {datetime.now():%Y-%m-%d at %H:%M}; {there}."
    return write_page(ident.settings.name, exhibits, runs, curves, ident.report / "live.html", note)


def _row(status: Status) -> dict[str, Any]:
    values = asdict(status)
    kept = {name: values[name] for name in ("run", "step", "tokens_per_second", "mfu", "gpu_hours", "note")}
    return {**kept, "status": status.state, "train_loss": status.loss, "hours_left": status.hours_left}


def _curve(one: Artefact, length: int, row: dict[str, Any]) -> pd.DataFrame:
    """The losses of a run over tokens: each update's where it is finished, else those that were logged."""
    curve = pd.DataFrame()
    with suppress(OSError, ValueError):
        if is_done(one.folder):
            curve = pd.read_parquet(one.folder / "train.parquet", columns=["tokens", "step", "loss"])
        else:
            logged = pd.read_csv(one.folder / CURVE, usecols=["step", "loss"])
            logged = logged.apply(pd.to_numeric, errors="coerce").dropna()  # the last line may be half written
            curve = logged.assign(tokens=logged["step"] * one.spec["training"]["sequences_per_step"] * length)
    return curve.assign(**{name: row[name] for name in ("run", "model", "variant", "seed")})
