"""What a launch would train again although it is finished, under other settings or code, and what that had cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.records import read_record
from deconattn.experiment.states import States


@dataclass(frozen=True)
class Finished:
    """A finished run of a results folder: its folder, done.json, and what it had cost."""

    folder: Path
    done: dict[str, Any]

    @property
    def gpu_hours(self) -> float:
        """Hours of training × processes; a process on a CPU counts as one."""
        return float(self.done.get("seconds") or 0.0) * int(self.done.get("processes") or 1) / 3600


def stem(run: str) -> str:
    """Model, variant, layout and seed of a run's name: all but its hash."""
    return run.rpartition("-")[0]


def finished_runs(results: Path = RESULTS) -> dict[str, list[Finished]]:
    """Stem → finished runs of it, the one that ended last first."""
    found: dict[str, list[tuple[float, Finished]]] = {}
    for path in (results / "runs").glob("*/done.json"):
        done, _ = read_record(path)
        if done is not None:
            ended = float(done.get("ended") or path.stat().st_mtime)
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


def check(ident: Identity, states: States, configs: str) -> None:
    """Stop a launch that would redo more than `redo_gpu_hours` of the settings.

    Raises:
        UserError: what would be redone, what it had cost, and what to type.
    """
    redone = to_redo(ident, states)
    hours = sum(run.gpu_hours for run in redone.values())
    allowed = ident.settings.redo_gpu_hours
    if hours <= allowed:
        return
    rounded = f"{hours:.3g}" if hours < 1 else f"{int(hours) + 1}"
    names = sorted(redone, key=lambda run: -redone[run].gpu_hours)
    listed = [
        f"  {run} (finished as {redone[run].folder.name}: {redone[run].gpu_hours:.3g} GPU-hours)" for run in names[:5]
    ]
    more = [f"  and {len(names) - 5} more"] if len(names) > 5 else []
    raise UserError(
        "\n".join(
            [
                f"stopped: this would train again {len(redone)} runs that are finished with other settings or code, "
                f"{hours:.3g} GPU-hours (redo_gpu_hours allows {allowed:g}):",
                *listed,
                *more,
                f"  to see why:                          deconattn explain {configs}",
                f"  to train them again:                 add --config redo_gpu_hours={_more(hours, rounded)}",
                f'  if the code gives the same results:  deconattn adopt {configs} --reason "…"',
            ]
        )
    )


def _more(hours: float, rounded: str) -> str:
    """A number that is not less than the hours and can be typed."""
    return rounded if float(rounded) >= hours else f"{hours * 1.01:.3g}"
