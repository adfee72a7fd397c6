"""How far each run of a grid is, read from the files of its folder alone: record, lock, log, `error.txt`, `curve.csv`."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deconattn.experiment.artefact import Artefact
from deconattn.experiment.identity import Identity
from deconattn.experiment.readable import duration, hours, number, plural
from deconattn.experiment.record import (
    CURVE,
    ERROR,
    SPEC,
    amount,
    is_done,
    last_attempt,
    read_object,
    read_record,
)
from deconattn.training.lock import Owner, RunLock

STATES = ("finished", "diverged", "running", "stopped", "failed", "queued", "missing")
"""`stopped`: saved and left, to be resumed; `queued`: a launch has prepared it, and no attempt has begun; `missing`: none has."""
SILENT_SECONDS = 600.0  # an owner elsewhere touches its lock each five seconds; clocks of a cluster differ by less
TAIL_BYTES = 4096  # of curve.csv: some fifty rows, whose mean speed is that of late


@dataclass(frozen=True)
class Status:
    """One run. None: not known, such as the hours of a run that has not begun while no other of its model has.

    `hours_left` is time on the clock, at the speed of late; GPU-hours count each process, on a CPU too.
    """

    run: str
    folder: str
    model: str
    state: str
    step: int
    steps: int
    loss: float | None
    tokens_per_second: float | None
    mfu: float | None
    hours_left: float | None
    attempts: int
    gpu_hours: float
    gpu_hours_left: float | None
    note: str


def statuses(ident: Identity) -> list[Status]:
    """Each run of the grid, in its order. One that has not begun is taken to need what others of its model do."""
    found = [status_of(run.name, one) for run, one in ident.trainings.items()]
    needed: dict[str, list[float]] = {}
    for each in found:
        if each.step and each.gpu_hours_left is not None and each.state != "diverged":
            needed.setdefault(each.model, []).append(each.gpu_hours + each.gpu_hours_left)
    unknown = [each.gpu_hours_left is None and each.model in needed for each in found]
    return [
        replace(each, gpu_hours_left=fmean(needed[each.model])) if is_unknown else each
        for each, is_unknown in zip(found, unknown, strict=True)
    ]


def status_of(name: str, one: Artefact) -> Status:
    """The status of one run; `one` is its training."""
    folder, steps = one.folder, int(one.spec["training"]["steps"])
    owner = RunLock(folder / "lock").owner()
    record, spec, rows = read_record(folder), read_object(folder / SPEC) or {}, _last_rows(folder / CURVE)
    state, note = _state(folder, record, owner)
    last, facts = rows[-1] if rows else {}, record or {}
    step = int(amount(facts.get("steps")) or last.get("step", 0))
    seconds = amount(facts.get("seconds")) or last.get("seconds", 0.0)
    processes = int(amount((record or spec.get("resources") or {}).get("processes"))) or 1
    left = 0.0 if state in ("finished", "diverged") else None
    if left is None and rows:
        first = rows[0] if rows[0]["step"] < last["step"] else {"step": 0, "seconds": 0.0}
        left = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"]) * (steps - step) / 3600
    return Status(
        run=name,
        folder=str(folder),
        model=str(one.model),
        state=state,
        step=step,
        steps=steps,
        loss=last.get("loss"),
        tokens_per_second=last.get("tokens_per_second"),
        mfu=last.get("mfu"),
        hours_left=left,
        attempts=owner.number if owner else 0,
        gpu_hours=seconds * processes / 3600,
        gpu_hours_left=None if left is None else left * processes,
        note=note,
    )


def _state(folder: Path, record: dict[str, Any] | None, owner: Owner | None) -> tuple[str, str]:
    """The state of a run, and by whom or why."""
    if record or is_done(folder):
        diverged = (record or {}).get("status") == "diverged"
        return ("diverged", str((record or {}).get("detail"))) if diverged else ("finished", "")
    if owner and owner.lives is not False and (owner.lives or time.time() - owner.touched / 1e9 < SILENT_SECONDS):
        return "running", str(owner)
    said = last_attempt(folder).removeprefix("not finished: ").removeprefix(f"{folder.name}: ")
    if (folder / ERROR).exists():
        return "failed", said
    if owner:  # it sets the time of its lock to 0 when it leaves
        return ("failed", f"ended without a word after: {said}") if owner.touched else ("stopped", said)
    return ("queued" if (folder / SPEC).exists() else "missing"), ""


def _last_rows(path: Path) -> list[dict[str, float]]:
    """The last whole rows of a curve that may be written to now; empty fields are left out."""
    found: list[dict[str, float]] = []
    with suppress(OSError, ValueError), open(path, "rb") as stream:
        names = stream.readline().decode().strip().split(",")
        stream.seek(max(stream.tell() - 1, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
        for line in stream.read().decode().split("\n")[1:-1]:
            found.append({name: float(value) for name, value in zip(names, line.split(","), strict=False) if value})
    return [row for row in found if row.keys() >= {"step", "seconds"}]


# ---- for a person ---------------------------------------------------------------------------------------------------
def totals(found: list[Status]) -> dict[str, Any]:
    """Runs by state; GPU-hours used, and to go as far as known; runs of which that is not known."""
    known = [each.gpu_hours_left for each in found if each.gpu_hours_left is not None]
    return {
        "runs": len(found),
        **{state: sum(each.state == state for each in found) for state in STATES},
        "gpu_hours": sum(each.gpu_hours for each in found),
        "gpu_hours_left": sum(known),
        "unknown": len(found) - len(known),
    }


def print_statuses(ident: Identity, found: list[Status]) -> None:
    """Print a table with a row a run, and totals, as plain text that `watch` can show; on a terminal, failures are red."""
    # `watch` states the terminal's width, and cuts what is beyond: that is the reason, never a number.
    width = max(150, shutil.get_terminal_size((200, 0)).columns)
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("run", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "loss", "tokens/s", "MFU", "left", "tries", "GPU h"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by whom, or why", overflow="fold")
    for each in found:
        table.add_row(
            each.run,
            each.state,
            f"{each.step:,}/{each.steps:,}",
            "" if each.loss is None else f"{each.loss:.4f}",
            number(each.tokens_per_second or 0) if each.tokens_per_second else "",
            f"{each.mfu:.0%}" if each.mfu else "",
            duration(each.hours_left) if each.hours_left else "",
            str(each.attempts or ""),
            hours(each.gpu_hours) if each.gpu_hours else "",
            each.note,
            style="red" if each.state in ("failed", "diverged") else "",
        )
    console.print(table, "")
    sums = totals(found)
    states = " · ".join(f"{sums[state]} {state}" for state in STATES if sums[state])
    console.print(f"{plural(len(found), 'run')}: {states}")
    more = f", and those of {plural(sums['unknown'], 'run')} whose model has not begun (deconattn plan)"
    left = f"{hours(sums['gpu_hours_left'])} to go{more if sums['unknown'] else ''}"
    console.print(f"GPU-hours: {hours(sums['gpu_hours'])} used, {left}")
    made = {"evaluated": ident.evaluations, "analysed": ident.analyses}
    count = Counter({name: sum(is_done(one.folder) for one in of.values()) for name, of in made.items()})
    console.print("then: " + ", ".join(f"{count[name]} of {len(of)} {name}" for name, of in made.items()))
