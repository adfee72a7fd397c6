"""What a launch would do again although it is finished, under other settings or code, and what that had cost."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.records import read_record
from deconattn.experiment.states import OUTPUTS, States

WIDTH, LISTED = 80, 5
DONE = {"pretrain": "trained", "evaluate": "evaluated", "analyse": "analysed"}


def amount(value: Any) -> float:
    """A number of a record; 0 for what is none, as in a record that was damaged."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else 0.0


@dataclass(frozen=True)
class Finished:
    """A finished run of a results folder: its folder, done.json, and what it had cost."""

    folder: Path
    done: dict[str, Any]

    @property
    def gpu_hours(self) -> float:
        """Hours of training × processes; a process on a CPU counts as one."""
        return amount(self.done.get("seconds")) * (int(amount(self.done.get("processes"))) or 1) / 3600


@dataclass(frozen=True)
class Again:
    """Finished work that would be done again: a stage of a run, the folder that it is finished in, what it had cost."""

    run: str
    stage: str
    folder: Path
    gpu_hours: float


def stem(run: str) -> str:
    """Model, variant, layout and seed of a run's name: all but its hash."""
    return run.rpartition("-")[0]


def finished_runs(results: Path = RESULTS) -> dict[str, list[Finished]]:
    """Stem → finished runs of it, the one that ended last first."""
    found: dict[str, list[tuple[float, Finished]]] = {}
    for path in (results / "runs").glob("*/done.json"):
        done, _ = read_record(path)
        if done is not None:
            ended = amount(done.get("ended")) or path.stat().st_mtime
            found.setdefault(stem(path.parent.name), []).append((ended, Finished(path.parent, done)))
    return {name: [run for _, run in sorted(runs, key=lambda one: -one[0])] for name, runs in found.items()}


def begun(folder: Path) -> bool:
    """Whether a training has saved a checkpoint there."""
    return any(folder.glob("checkpoints/step-*"))


def to_redo(ident: Identity, states: States) -> dict[str, Finished]:
    """Run of the configuration that is to be trained → the finished run of the same model, variant, layout and seed.

    A run that has begun is not counted: somebody has already decided.
    """
    wanted = [run for run in ident.specs if not states.of_run(run, "pretrain").fresh]
    found = finished_runs() if wanted else {}
    redone = {}
    for run in wanted:
        others = found.get(stem(run), [])
        own = [one for one in others if one.folder.name == run]
        if own or (others and not begun(ident.folder(run))):
            redone[run] = (own or others)[0]
    return redone


def again(ident: Identity, states: States) -> list[Again]:
    """All finished work that would be done again: trainings, and the evaluations and analyses that have a record."""
    redone = to_redo(ident, states)
    found = [Again(run, "pretrain", one.folder, one.gpu_hours) for run, one in redone.items()]
    for stage, runs in (("evaluate", list(ident.specs)), ("analyse", ident.analysed)):
        for run in runs:
            if states.of_run(run, stage).fresh:
                continue
            folder = redone[run].folder if run in redone else ident.folder(run)
            record, _ = read_record(folder / OUTPUTS[stage][-1])
            if record is not None:
                # One process, on one GPU at most.
                found.append(Again(run, stage, folder, amount(record.get("seconds")) / 3600))
    return found


def check(ident: Identity, states: States, configs: str) -> None:
    """Stop a launch that would redo more than `redo_gpu_hours` of the settings.

    Raises:
        UserError: what would be redone, what it had cost, and what to type.
    """
    found = again(ident, states)
    hours = sum(work.gpu_hours for work in found)
    if hours > ident.settings.redo_gpu_hours:
        raise UserError(_stopped(found, hours, states, ident.settings.redo_gpu_hours, configs))


def _stopped(found: list[Again], hours: float, states: States, allowed: float, configs: str) -> str:
    counts = Counter(work.stage for work in found)
    what = ", ".join(f"{counts[stage]} runs {said}" for stage, said in DONE.items() if counts[stage])
    lines = [f"stopped: {hours:.3g} GPU-hours of finished work would be done again"]
    lines += _wrapped("  ", f"(redo_gpu_hours allows {allowed:g}): {what}")
    by_run: dict[str, list[Again]] = {}
    for work in found:
        by_run.setdefault(work.run, []).append(work)
    costs = {run: sum(work.gpu_hours for work in works) for run, works in by_run.items()}
    names = sorted(by_run, key=lambda run: -costs[run])
    for run in names[:LISTED]:
        lines += _wrapped("  ", f"{run}: {costs[run]:.3g} GPU-hours", "      ")
        lines += _wrapped("      ", _why(by_run[run][0], states))
    if len(names) > LISTED:
        lines.append(f"  and {len(names) - LISTED} more")
    rounded = f"{hours:.3g}" if hours < 1 else f"{int(hours) + 1}"
    return "\n".join(
        [
            *lines,
            "to see why:",
            f"  deconattn explain {configs}",
            "to do it again, add:",
            f"  --config redo_gpu_hours={_more(hours, rounded)}",
            "if the code gives the same results:",
            f'  deconattn adopt {configs} --reason "…"',
        ]
    )


def _why(work: Again, states: States) -> str:
    if work.folder.name != work.run:
        return f"finished as {work.folder.name}"
    return states.of_run(work.run, work.stage).why or "its tables are not there"


def _wrapped(start: str, text: str, indent: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent or start,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _more(hours: float, rounded: str) -> str:
    """A number that is not less than the hours and can be typed."""
    return rounded if float(rounded) >= hours else f"{hours * 1.01:.3g}"
