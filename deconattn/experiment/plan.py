"""What would run and what it costs: Snakemake's own dry run, priced."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deconattn.experiment import dryrun
from deconattn.experiment.explain import changes_of
from deconattn.experiment.guard import again, amount, begun, finished_runs, to_redo
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.prices import BYTES_KEPT, BYTES_WHILE_TRAINING, Price, Prices, wall_hours
from deconattn.experiment.prune import named, orphans, other_configs
from deconattn.experiment.records import read_record
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import States

STATUSES = ("finished", "stale", "begun", "missing")


TRAINING_RULES = ("pretrain", "pretrain_on_nodes")  # the second where a model is trained on several nodes


@dataclass(frozen=True)
class Plan:
    """The plan of one configuration; `as_json` is what `--json` prints."""

    configs: list[str]
    jobs: list[dryrun.Job]
    runs: dict[str, str]
    why_stale: dict[str, list[str]]
    prices: list[Price]
    other_hours: dict[tuple[str, str], tuple[float, str]]
    orphans: list[str]
    wall: dict[int, float | None]
    disk: dict[str, int | None]
    redo_gpu_hours: float
    allowed_gpu_hours: float
    vocabulary: tuple[int, str]
    model_of: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain values, units in the names."""
        return {
            "configs": self.configs,
            "jobs": [asdict(job) for job in self.jobs],
            "jobs_by_rule": dict(Counter(job.rule for job in self.jobs)),
            "runs": [
                {"run": run, "status": status, "why": self.why_stale.get(run, [])} for run, status in self.runs.items()
            ],
            "trainings": [
                {**asdict(price), "gpu_hours": price.gpu_hours, "model": self.model_of[price.run]}
                for price in self.prices
            ],
            "stages": [
                {"stage": stage, "model": model, "hours": hours, "hours_from": source, "jobs": self.count(stage, model)}
                for (stage, model), (hours, source) in self.other_hours.items()
            ],
            "totals": {
                "jobs": len(self.jobs),
                "trainings": len(self.prices),
                "tokens": sum(price.tokens for price in self.prices),
                "flops": sum(price.flops for price in self.prices),
                "gpu_hours": sum(price.gpu_hours for price in self.prices),
            },
            "orphans": self.orphans,
            "wall_hours_at_gpus": {str(count): hours for count, hours in self.wall.items()},
            "disk_bytes": self.disk,
            "redo_gpu_hours": {"would": self.redo_gpu_hours, "allowed": self.allowed_gpu_hours},
            "vocabulary": {"entries": self.vocabulary[0], "from": self.vocabulary[1]},
        }

    def count(self, stage: str, model: str) -> int:
        """Jobs of a stage for the runs of a model."""
        return sum(job.rule == stage and self.model_of.get(job.run) == model for job in self.jobs)


def make_plan(configs: list[Path], *, gpus: int | None, device: str, mfu: float) -> Plan:
    """Plan a configuration in the current folder; asks Snakemake while it works out the costs.

    Raises:
        UserError: a config, a device or an MFU that cannot be; what Snakemake said when it could not plan.
    """
    ident = Identity(load_settings(configs))
    asked = dryrun.start(configs, [])
    try:
        return _plan(asked, ident, [str(config) for config in configs], gpus, device, mfu)
    finally:
        if asked.poll() is None:
            asked.kill()
        asked.communicate()


def _plan(asked: Any, ident: Identity, configs: list[str], gpus: int | None, device: str, mfu: float) -> Plan:
    states = States(ident)
    finished = finished_runs()
    prices = Prices(ident, finished, device, mfu)
    redo = to_redo(ident, states)
    statuses: dict[str, str] = {}
    priced = {}
    for run in ident.specs:
        if states.of_run(run, "pretrain").fresh:
            statuses[run] = "finished"
            continue
        steps = steps_done(ident.folder(run))
        statuses[run] = "stale" if run in redo else "begun" if begun(ident.folder(run)) else "missing"
        priced[run] = prices.of(run, steps)
    kinds = {run: ident.specs[run]["model"]["name"] for run in ident.specs}
    prices.formulas.save()
    jobs = dryrun.jobs_of(asked)
    training = {job.run for job in jobs if job.rule in TRAINING_RULES}
    trained = [priced.get(run) or prices.of(run, 0) for run in ident.specs if run in training]
    return Plan(
        configs=configs,
        jobs=jobs,
        runs=statuses,
        why_stale={run: changes_of(ident, states, run, other.folder) for run, other in redo.items()},
        prices=trained,
        other_hours={
            (stage, model): _stage_hours(ident, stage, model)
            for stage in ("evaluate", "analyse")
            for model in dict.fromkeys(kinds[run] for run in ident.specs)
            if any(job.rule == stage and kinds[job.run] == model for job in jobs)
        },
        orphans=_orphans(ident, [Path(config) for config in configs]),
        wall=_wall(trained, gpus),
        disk=_disk(ident, trained),
        redo_gpu_hours=sum(work.gpu_hours for work in again(ident, states)),
        allowed_gpu_hours=ident.settings.redo_gpu_hours,
        vocabulary=(prices.vocabulary, prices.vocabulary_from),
        model_of=kinds,
    )


def steps_done(folder: Path) -> int:
    """Updates of the newest checkpoint of a run."""
    names = [path.name.removeprefix("step-") for path in folder.glob("checkpoints/step-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _orphans(ident: Identity, configs: list[Path]) -> list[str]:
    """Runs that no config of the project names, as `deconattn prune` lists them; what is merged here counts as merged."""
    found, _ = orphans((), [*configs, *other_configs(configs)])
    kept = named(ident)
    return sorted(one.path.name for one in found if one.path.parent == RESULTS / "runs" and one.path not in kept)


def _stage_hours(ident: Identity, stage: str, model: str) -> tuple[float, str]:
    """Hours of one evaluation or analysis of a model: as long as a finished one took, else the job's limit."""
    record = {"evaluate": "evaluation.json", "analyse": "analysis.json"}[stage]
    taken = []
    for path in (RESULTS / "runs").glob(f"{model}-*/{record}"):
        found, _ = read_record(path)
        if found and amount(found.get("seconds")):
            taken.append(amount(found["seconds"]))
    if taken:
        return sum(taken) / len(taken) / 3600, f"mean of {len(taken)} finished"
    from deconattn.experiment import grid

    return grid.resources_of(ident.settings, model).evaluation_minutes / 60, "the job's limit: none is finished"


def _wall(prices: list[Price], gpus: int | None) -> dict[int, float | None]:
    most = max((price.gpus for price in prices), default=1)
    counts = [gpus] if gpus else [most, 2 * most, 4 * most, 8 * most]
    return {count: wall_hours(prices, count) for count in counts} if prices else {}


def _disk(ident: Identity, prices: list[Price]) -> dict[str, int | None]:
    """Bytes that the runs will take, at the end and at most with all at once, and the token table; and what is free."""
    tokens: int | None = 0
    if not (ident.tokens / "manifest.json").is_file():
        budget = ident.settings.tokens.budget
        tokens = 2 * budget if budget else None
    return {
        "runs": sum(BYTES_KEPT * price.parameters for price in prices),
        "runs_while_training": sum(BYTES_WHILE_TRAINING * price.parameters for price in prices),
        "tokens": tokens,
        "free": shutil.disk_usage(Path.cwd()).free,
    }
