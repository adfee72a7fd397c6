"""What a launch would run and what it would cost.

A job runs if the marker of its folder is missing and something that is to be made needs it. The workflow's input functions
follow the same rule, so the plan does not need Snakemake.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from deconattn import bf16
from deconattn.experiment import grid
from deconattn.experiment.changes import retrained, slow_in_bf16
from deconattn.experiment.identity import Identity
from deconattn.experiment.prices import ASSUMED_VOCABULARY, LIMIT, Price, prices, prices_by_time, vocabulary
from deconattn.experiment.readable import duration, hours, number, plural
from deconattn.experiment.record import is_done
from deconattn.experiment.results import begun, finished_runs

RULES = {"archive": "fetch", "mirror": "mirror_source", "tokenizer": "train_tokenizer"}
"""Stages whose rule has another name."""
PRICED = ("pretrain", "evaluate", "analyse")
"""Rules whose jobs have a price."""
WEIGHT_BYTES, CHECKPOINT_BYTES, CHECKPOINTS_AT_MOST = 4, 12, 3
"""Bytes of a parameter on disk: in the weights, in a checkpoint (with two moments); checkpoints while training, for a moment."""


@dataclass(frozen=True)
class Job:
    """One job: its rule, the folder that it fills, the part of it ("" for the whole), and the model of its run."""

    rule: str
    folder: str
    part: str
    model: str | None


def jobs(ident: Identity) -> list[Job]:
    """The jobs of a launch of the whole configuration, each after what it is made from."""
    all_drawn = all(is_done(one.folder) for one in ident.exhibits.values())
    found: dict[str, list[Job]] = {}
    runs = () if ident.partial else ident.trainings.values()
    waiting = [*runs, *ident.exhibits.values(), *([ident.page] if ident.exhibits else [])]
    while waiting:
        one = waiting.pop()
        folder = str(one.folder)
        # The page waits for exhibits that are to be drawn, and is written again.
        is_finished = is_done(folder) and (all_drawn or one.stage != "page")
        if folder in found or is_finished:
            continue
        rule = RULES.get(one.stage, one.stage)
        parts = [f"{number:04d}" for number in range(one.parts)]
        found[folder] = [Job(f"{one.stage}_part", folder, part, None) for part in parts if not is_done(folder, part)]
        # With all parts finished, their sources are not needed again.
        if not one.parts or found[folder]:
            waiting += [ident.artefacts[need] for need in one.needs]
        found[folder].append(Job(rule, folder, "", one.model))
    return [job for folder in ident.artefacts for job in found.get(folder, [])]


def make_plan(
    ident: Identity, configs: list[str], *, gpus: int | None, device: str, mfu: float | None
) -> dict[str, Any]:
    """The plan of a configuration, as `deconattn plan --json` prints it.

    Args:
        gpus: GPUs for the wall time; None: once, twice, four and eight times as many as the largest training needs.
        device, mfu: where no finished run tells the speed (see `prices`).
    """
    todo = jobs(ident)
    made = {rule: [ident.artefacts[job.folder] for job in todo if job.rule == rule] for rule in PRICED}
    trainings, evaluations, analyses = made.values()
    priced = prices(ident, trainings, finished_runs(), device, mfu)
    stages: dict[tuple[str, str], list[Price]] = {}
    for price in [*priced, *prices_by_time(ident, [*evaluations, *analyses])]:
        stages.setdefault((price.stage, price.model), []).append(price)
    largest = max((price.gpus for price in priced), default=1)
    counts = [gpus] if gpus else [largest * factor for factor in (1, 2, 4, 8)]
    notes = [bf16.SLOW] if slow_in_bf16(ident, trainings) else []
    if trainings and any(vocabulary(ident, model) is None for model in ident.token_tables):
        notes.append(f"vocabulary of {ASSUMED_VOCABULARY:,} assumed: the tokenizer is not mirrored yet")
    again = retrained(ident)
    return {
        "configs": configs,
        "jobs": [asdict(job) for job in todo],
        "runs": {one.folder.name: _status(one.folder) for one in ident.trainings.values()},
        "trainings": [asdict(price) for price in priced],
        "stages": [_row(stage, model, group) for (stage, model), group in stages.items()],
        "totals": _row("total", "", [price for group in stages.values() for price in group]),
        "wall_hours_at_gpus": {count: _wall_hours(priced, count) for count in counts if priced},
        "disk_bytes": _disk(ident, {job.folder for job in todo}, priced),
        "retrained": {
            one.folder.name: {"finished_as": run.folder.name, "gpu_hours": run.gpu_hours}
            for one, (run, _) in again.items()
        },
        "redo_gpu_hours": ident.settings.redo_gpu_hours,
        "notes": notes,
    }


def _status(folder: Path) -> str:
    return "finished" if is_done(folder) else "begun" if begun(folder) else "missing"


def _row(stage: str, model: str, prices: list[Price]) -> dict[str, Any]:
    """The jobs of one stage and model, or all; `is_bound`: hours at most, as none has finished yet."""
    sums = {name: sum(getattr(price, name) for price in prices) for name in ("tokens", "flops", "gpu_hours")}
    parameters = prices[0].parameters if model else 0
    is_bound = any(price.rate_from == LIMIT for price in prices)
    return {"stage": stage, "model": model, "jobs": len(prices), "parameters": parameters, **sums, "is_bound": is_bound}


def _wall_hours(prices: list[Price], devices: int) -> float | None:
    """Hours until all are trained side by side, at least; None if one needs more devices."""
    if any(price.gpus > devices for price in prices):
        return None
    return max(sum(price.gpu_hours for price in prices) / devices, *(price.gpu_hours / price.gpus for price in prices))


def _disk(ident: Identity, to_fill: set[str], trainings: list[Price]) -> dict[str, int | None]:
    """Bytes that will be taken: the mirror (at most: as plain text), the token table, the runs at the end and at their
    most; what is free; and what is missing at most. None: not known before the text is mirrored."""

    def runs(checkpoints: Callable[[str], int]) -> int:
        return sum(one.parameters * (WEIGHT_BYTES + CHECKPOINT_BYTES * checkpoints(one.model)) for one in trainings)

    text = getattr(ident.settings.corpus, "max_bytes", None)
    tables = {str(one.folder): one.spec["budget"] for one in ident.token_tables.values()}
    budgets = [budget for folder, budget in tables.items() if folder in to_fill]
    needed = {
        "mirror": text if ident.corpus and str(ident.corpus.folder) in to_fill else 0,
        "tokens": None if None in budgets else 2 * sum(budgets),
        "runs_while_training": runs(lambda _: CHECKPOINTS_AT_MOST),
    }
    kept = runs(lambda model: grid.resources_of(ident.settings, model).keep_checkpoints)
    free = shutil.disk_usage(Path.cwd()).free
    missing = max(0, sum(each or 0 for each in needed.values()) - free)
    return {**needed, "runs": kept, "free": free, "missing": missing}


# ---- for a person ----------------------------------------------------------------------
COLUMNS = ("stage", "model", "jobs", "parameters", "tokens", "FLOPs", "GPU-hours")


def print_plan(plan: dict[str, Any]) -> None:
    """Print a plan on standard output, 80 columns wide; on a terminal, warnings are red."""
    console = Console(width=80, markup=False, highlight=False, emoji=False)
    todo = f"{plural(len(plan['runs']), 'run')}, {plural(len(plan['jobs']), 'job')} to do"
    console.print(f"{' '.join(plan['configs'])}: {todo}\n")
    if plan["stages"]:
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for name in ("stage", "model", "jobs", "parameters", "tokens", "FLOPs", "GPU-hours"):
            # If a line is too long, the model is cut.
            side: Literal["left", "right"] = "left" if name in ("stage", "model") else "right"
            table.add_column(name, justify=side, no_wrap=name != "model", overflow="ellipsis")
        for row in (*plan["stages"], plan["totals"]):
            numbers = [number(row[name]) if row[name] else "" for name in ("parameters", "tokens", "flops")]
            taken = f"{'≤ ' if row['is_bound'] else ''}{hours(row['gpu_hours'])}"
            end = row is plan["stages"][-1]
            table.add_row(row["stage"], row["model"], str(row["jobs"]), *numbers, taken, end_section=end)
        console.print(table, "")
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name, text in _facts(plan):
        lines.add_row(name, text, style="red" if name == "warning" else "")
    console.print(lines)


def _facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines that begin with a word: (word, text)."""
    statuses, disk, trainings = Counter(plan["runs"].values()), plan["disk_bytes"], plan["trainings"]
    found = [("runs", " · ".join(f"{statuses[status]} {status}" for status in ("finished", "begun", "missing")))]
    if others := Counter(job["rule"] for job in plan["jobs"] if job["rule"] not in PRICED):
        found.append(("others", " · ".join(f"{rule} {count}" for rule, count in others.items())))
    if trainings:
        sources = Counter(price["rate_from"] for price in trainings).most_common(5)
        found.append(("speed", "; ".join(f"{source} ({plural(count, 'run')})" for source, count in sources)))
        counts = plan["wall_hours_at_gpus"]
        wall = [f"{duration(time)} on {count}" for count, time in counts.items() if time is not None]
        too_few = f"a run needs more than {min(counts)} GPUs"
        found.append(("wall", f"training, at least: {', '.join(wall)} GPUs" if wall else too_few))
    if trainings or disk["mirror"] != 0 or disk["tokens"] != 0:
        size = {name: "unknown" if count is None else decimal(count) for name, count in disk.items()}
        runs = f"runs {size['runs']} (at most {size['runs_while_training']} while all train)"
        mirror = size["mirror"] if disk["mirror"] is None else f"at most {size['mirror']}"
        text = f"mirror {mirror}, token table {size['tokens']}, {runs}; {size['free']} free"
        found.append(("disk", text))
    found += [("note", note) for note in plan["notes"]]
    if disk["missing"]:
        found.append(("warning", f"the disk is too small by {decimal(disk['missing'])}"))
    if plan["retrained"]:
        again, allowed = sum(each["gpu_hours"] for each in plan["retrained"].values()), plan["redo_gpu_hours"]
        runs = f"{plural(len(plan['retrained']), 'finished run')} ({hours(again)} GPU-hours)"
        stops = ": a launch will stop and print how to proceed" if again > allowed else ""
        because = f"would be trained again because the code has changed; redo_gpu_hours allows {allowed:g}{stops}"
        found.append(("warning", f"{runs} {because}"))
    return found
