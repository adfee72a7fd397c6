"""What of a configuration is finished, decided from the records beside the results alone.

A result is fresh when its record says that it was made from what the configuration now asks for: the same spec, the same
code (or code adopted as the same), the same tokens, weights and tables. Times of files say nothing: a copy changes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import PACKAGE, closure, code_digest
from deconattn.experiment.identity import Identity, canonical, short_hash
from deconattn.experiment.records import read_record
from deconattn.files import sha256_file

WEIGHTS, CURVE = "model/model.safetensors", "train.parquet"
OUTPUTS = {
    "pretrain": ("model/config.json", WEIGHTS, CURVE, "done.json"),
    "evaluate": ("evaluation.parquet", "samples.parquet", "evaluation.json"),
    "analyse": ("attention.parquet", "scores.parquet", "analysis.json"),
}
"""What each stage writes into a run's folder, its record last."""


@dataclass(frozen=True)
class State:
    """`fresh`, `stale` (made from something else, as `why` says) or `missing`."""

    status: str
    why: str = ""

    @property
    def fresh(self) -> bool:
        """Whether nothing is to be done."""
        return self.status == "fresh"


FRESH, MISSING = State("fresh"), State("missing")
ASKED = State("stale", "asked for on the command line")


class States:
    """The state of each stage of each run, and of the report, each looked up once.

    `asked` says whether a rule, or one of the files that it writes, was named on the command line as to be made again
    (`-R`, `-f`, `-F`): what was is stale, and with it what is made from it; all else stays as its records say.
    """

    def __init__(self, ident: Identity) -> None:
        self.ident = ident
        self.asked: Callable[[str, Iterable[Path]], bool] = lambda rule, files: False
        self.of_run = cache(self._of_run)
        self.analysed = frozenset(ident.analysed)
        self.aggregate = cache(self._aggregate)
        self.exhibit = cache(self._exhibit)

    def _of_run(self, run: str, stage: str) -> State:
        if stage == "pretrain":
            return self._training(run)
        if not self.of_run(run, "pretrain").fresh:
            return State("stale", "its training is to be done") if self._recorded(run, stage) != MISSING else MISSING
        return self._measured(run, stage)

    def _training(self, run: str) -> State:
        folder, spec = self.ident.folder(run), self.ident.specs[run]
        if not (folder / "done.json").is_file():
            return MISSING
        done, _ = read_record(folder / "done.json")
        if done is None or done.get("hash") != spec["hash"]:
            return State("stale", "done.json is broken or another run's")
        if self.tokens_sha256 and done.get("key") != f"{spec['hash']}-{self.tokens_sha256[:16]}":
            return State("stale", f"{self.ident.tokens / 'manifest.json'} was made anew and holds other tokens")
        # The curve is a result, and only a training makes it. Weights may be deleted once everything is measured; to measure
        # more they have to be there.
        stages = ("evaluate", "analyse") if run in self.analysed else ("evaluate",)
        gone = next((name for name in OUTPUTS["pretrain"] if not (folder / name).is_file()), None)
        if not (folder / CURVE).is_file():
            return State("stale", f"{CURVE} is gone")
        if gone and not all(self._measured(run, stage).fresh for stage in stages):
            return State("stale", f"{gone} is gone, and is needed again")
        return self.unless_asked(FRESH, "pretrain", (folder / name for name in OUTPUTS["pretrain"]))

    def unless_asked(self, found: State, rule: str, files: Iterable[Path]) -> State:
        """What was found of a rule's result, or that it was asked for again."""
        return ASKED if found.fresh and self.asked(rule, files) else found

    def _measured(self, run: str, stage: str) -> State:
        """Of an evaluation or analysis, whatever its training is."""
        files = (self.ident.folder(run) / name for name in OUTPUTS[stage])
        return self.unless_asked(self._recorded(run, stage), stage, files)

    def _recorded(self, run: str, stage: str) -> State:
        """Of an evaluation or analysis, by its record alone."""
        folder = self.ident.folder(run)
        if any(not (folder / name).is_file() for name in OUTPUTS[stage]):
            return MISSING
        record, _ = read_record(folder / OUTPUTS[stage][-1])
        if record is None:
            return State("stale", f"{OUTPUTS[stage][-1]} is broken")
        spec = self.ident.evaluation_spec(run) if stage == "evaluate" else self.ident.analysis_spec(run)
        changes = differences(self._adopted(_plain_spec(record)), spec)
        if record.get("weights") != weights_of(folder):
            changes = [*changes, "made from other weights"]
        return State("stale", "; ".join(changes)) if changes else FRESH

    def _adopted(self, spec: dict[str, Any]) -> dict[str, Any]:
        return {**spec, "code": self.ident.adoptions.first(str(spec["code"]))} if "code" in spec else spec

    @cached_property
    def tokens_sha256(self) -> str | None:
        """Of the manifest of the token table; None before there is one. Finished runs do without."""
        path = self.ident.tokens / "manifest.json"
        return sha256_file(path) if path.is_file() else None

    # ---- report -------------------------------------------------------------------------------------------------------------
    def gathering(self, name: str, runs: dict[str, str], partial: bool) -> State:
        """Of the tables that `name` (aggregate, aggregate_analysis) gathers from `runs` (run → note).

        With `partial` they hold what is there; else a run that is to be done makes them stale too, by its own doing.
        """
        tables = (self.ident.report / "tables" / table for table in GATHERED[name])
        found = self.unless_asked(self.aggregate(name, canonical(runs)), name, tables)
        stages = () if partial else ("pretrain", "evaluate" if name == "aggregate" else "analyse")
        ready = all(self.of_run(run, stage).fresh for run in runs for stage in stages)
        if name == "aggregate":
            ready = ready and self.baselines().fresh
        return found if ready or not found.fresh else MISSING

    def drawing(self, exhibit: str, options: str, gatherings: Iterable[State]) -> State:
        """Of a table or figure, whose tables have these states."""
        path = exhibit_record(self.ident.report, exhibit)
        files = (path.with_suffix(f".{kind}") for kind in kinds_of(exhibit))
        found = self.unless_asked(self.exhibit(exhibit, options), exhibit, files)
        return found if all(each.fresh for each in gatherings) or not found.fresh else MISSING

    def provenance(self, exhibits: Iterable[str], drawings: Iterable[State]) -> State:
        """Of the page of all tables' and figures' origins."""
        record, _ = read_record(self.ident.report / "provenance.json")
        if record is None or not (self.ident.report / "provenance.html").is_file():
            return MISSING
        if record.get("key") != provenance_key(exhibits, self.ident.report):
            return State("stale", "its tables and figures")
        found = FRESH if all(each.fresh for each in drawings) else MISSING
        return self.unless_asked(
            found, "provenance", (self.ident.report / f"provenance.{kind}" for kind in ("html", "json"))
        )

    def _aggregate(self, name: str, runs: str) -> State:
        if any(not (self.ident.report / "tables" / table).is_file() for table in GATHERED[name]):
            return MISSING
        record, _ = read_record(self.ident.report / "tables" / f"{name}.json")
        if record is not None and record.get("key") == gathered_key(name, runs, self.ident.report):
            return FRESH
        return State("stale", "other runs, records or code")

    def baselines(self) -> State:
        """Of the values of random guessing and of the majority class."""
        folder = self.ident.report / "tables"
        if not (folder / "baselines.parquet").is_file() or not (folder / "baselines.json").is_file():
            return MISSING
        record, _ = read_record(folder / "baselines.json")
        spec = self.ident.baselines_spec
        changes = differences(_plain_spec(record), spec)
        if not changes and record and record.get("code") not in self.ident.adoptions.same(spec["code"]):
            changes = [f"made by code {record.get('code')}, which was edited while its job waited"]
        found = State("stale", "; ".join(changes)) if changes else FRESH
        return self.unless_asked(found, "baselines", (folder / f"baselines.{kind}" for kind in ("parquet", "json")))

    def _exhibit(self, exhibit: str, options: str) -> State:
        path = exhibit_record(self.ident.report, exhibit)
        if any(not path.with_suffix(f".{kind}").is_file() for kind in kinds_of(exhibit)):
            return MISSING
        record, _ = read_record(path)
        if record is not None and record.get("key") == exhibit_key(exhibit, options, self.ident.report):
            return FRESH
        return State("stale", "its code, options or tables")


def _plain_spec(record: dict[str, Any] | None) -> dict[str, Any]:
    """What a record says that its result was made from; nothing if it does not say it."""
    spec = (record or {}).get("spec")
    return spec if isinstance(spec, dict) else {}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old → new` for each value that differs, nested keys dotted."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {_plain(before)} → {_plain(after)}")
    return found


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def weights_of(folder: Path) -> str | None:
    """SHA-256 of a run's weights as its training wrote it down."""
    done, _ = read_record(folder / "done.json")
    files = (done or {}).get("files")
    return files.get(WEIGHTS) if isinstance(files, dict) else None


# ---- what the report stands on: worked out by a launch to see what changed, and by the job to write it down
GATHERED = {
    "aggregate": ("runs.parquet", "evaluation.parquet", "training.parquet", "gaps.parquet", "aggregate.json"),
    "aggregate_analysis": ("attention.parquet", "scores.parquet", "analysis_gaps.parquet", "aggregate_analysis.json"),
    "aggregate_costs": ("costs.parquet", "cost_differences.parquet", "aggregate_costs.json"),
}
TABLE_KINDS, FIGURE_KINDS = ("html", "csv", "tex", "parquet", "json"), ("png", "svg", "pdf", "json")
_READ = {
    "aggregate": ("deconattn.report.collect", ("done.json", "evaluation.json")),
    "aggregate_analysis": ("deconattn.report.collect_analysis", ("done.json", "analysis.json")),
}


def gathered_key(name: str, runs: str, report: Path) -> str:
    """Key of gathered tables: the code, the runs (canonical JSON of run → note) and the records that these left."""
    module, files = _READ[name]
    folders = [report.parent.parent / "runs" / run for run in json.loads(runs)]
    records = [[read_record(folder / file)[1] for file in files] for folder in folders]
    baselines = read_record(report / "tables" / "baselines.json")[1] if name == "aggregate" else None
    return short_hash([code_digest(module), runs, records, baselines])


def kinds_of(exhibit: str) -> tuple[str, ...]:
    """Suffixes of the files that a table or figure is written as, its record's last."""
    return TABLE_KINDS if exhibit.startswith("table") else FIGURE_KINDS


def exhibit_record(report: Path, exhibit: str) -> Path:
    """The JSON beside a table or figure."""
    return report / ("tables" if exhibit.startswith("table") else "figures") / f"{exhibit}.json"


def exhibit_key(exhibit: str, options: str, report: Path) -> str:
    """Key of a table or figure: its code, its options, the keys of the tables that it reads, the published values."""
    names = ["aggregate", *(["aggregate_analysis"] if exhibit in grid.ANALYSED else [])]
    tables = [(read_record(report / "tables" / f"{name}.json")[0] or {}).get("key") for name in names]
    if exhibit in grid.COSTED:
        files = [report / "tables" / f"{name}.parquet" for name in ("costs", "cost_differences")]
        tables = [sha256_file(file) if file.is_file() else None for file in files]
    modules = exhibit_modules(exhibit)
    published = "deconattn.report.published" in closure(*modules)
    paper = sha256_file(PACKAGE / "report" / "published_results.csv") if published else None
    return short_hash([code_digest(*modules), options, tables, paper])


def provenance_key(exhibits: Iterable[str], report: Path) -> str:
    """Key of the page of origins: its code and the records that it shows."""
    records = [read_record(exhibit_record(report, exhibit))[1] for exhibit in exhibits]
    return short_hash([code_digest("deconattn.report.provenance_page"), records])


def exhibit_modules(exhibit: str) -> list[str]:
    """What drawing an exhibit imports by name: itself, and how a table or a figure is written."""
    writer = "write_table" if exhibit.startswith("table") else "write_figure"
    return [f"deconattn.report.{name}" for name in (exhibit, writer)]
