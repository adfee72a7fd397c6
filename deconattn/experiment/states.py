"""What of a configuration is finished, decided from the records beside the results alone.

A result is fresh when its record says that it was made from what the configuration now asks for: the same spec, the same
code (or code adopted as the same), the same tokens, weights and tables. Times of files say nothing: a copy changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import code_digest
from deconattn.experiment.identity import Identity, short_hash
from deconattn.experiment.records import read_record
from deconattn.files import sha256_file

WEIGHTS = "model/model.safetensors"
OUTPUTS = {
    "pretrain": ("model/config.json", WEIGHTS, "train.parquet", "done.json"),
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


class States:
    """The state of each stage of each run, and of the report, each looked up once."""

    def __init__(self, ident: Identity) -> None:
        self.ident = ident
        self.of_run = cache(self._of_run)
        self.aggregate = cache(self._aggregate)
        self.exhibit = cache(self._exhibit)

    def _of_run(self, run: str, stage: str) -> State:
        folder = self.ident.folder(run)
        if any(not (folder / name).is_file() for name in OUTPUTS[stage]):
            return MISSING
        if stage == "pretrain":
            return self._training(run, folder)
        if not self.of_run(run, "pretrain").fresh:
            return State("stale", "its training is to be done")
        record, _ = read_record(folder / OUTPUTS[stage][-1])
        if record is None:
            return State("stale", f"{OUTPUTS[stage][-1]} is broken")
        spec = self.ident.evaluation_spec(run) if stage == "evaluate" else self.ident.analysis_spec(run)
        changes = differences(self._adopted(record.get("spec") or {}), spec)
        if record.get("weights") != weights_of(folder):
            changes = [*changes, "made from other weights"]
        return State("stale", "; ".join(changes)) if changes else FRESH

    def _training(self, run: str, folder: Path) -> State:
        done, _ = read_record(folder / "done.json")
        spec = self.ident.specs[run]
        if done is None or done.get("hash") != spec["hash"]:
            return State("stale", "done.json is broken or another run's")
        if self.tokens_sha256 and done.get("key") != f"{spec['hash']}-{self.tokens_sha256[:16]}":
            return State("stale", f"{self.ident.tokens / 'manifest.json'} was made anew and holds other tokens")
        return FRESH

    def _adopted(self, spec: dict[str, Any]) -> dict[str, Any]:
        return {**spec, "code": self.ident.adoptions.first(spec["code"])} if "code" in spec else spec

    @cached_property
    def tokens_sha256(self) -> str | None:
        """Of the manifest of the token table; None before there is one. Finished runs do without."""
        path = self.ident.tokens / "manifest.json"
        return sha256_file(path) if path.is_file() else None

    # ---- report -------------------------------------------------------------------------------------------------------------
    def _aggregate(self, name: str, runs: str, stages: tuple[str, ...]) -> State:
        """Of the gathered tables that `name` (aggregate, aggregate_analysis, baselines) writes, by its canonical `runs`."""
        names = self.ident.analysed if name == "aggregate_analysis" else list(self.ident.specs)
        for run in names if stages else ():
            for stage in stages:
                if not self.of_run(run, stage).fresh:
                    return State("stale", f"{run}: {stage} is to be done")
        record, _ = read_record(self.ident.report / "tables" / f"{name}.json")
        if record is None:
            return MISSING
        return FRESH if record.get("key") == gathered_key(name, runs, self.ident.report) else State("stale", "its runs")

    def _exhibit(self, exhibit: str, options: str) -> State:
        record, _ = read_record(exhibit_record(self.ident.report, exhibit))
        if record is None:
            return MISSING
        if record.get("key") == exhibit_key(exhibit, options, self.ident.report):
            return FRESH
        return State("stale", "its code, options or tables")


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
    return (done or {}).get("files", {}).get(WEIGHTS)


# ---- what the report stands on: computed by the launch to see whether it changed, and by the job to write it down ---------------
GATHERERS = {
    "aggregate": ("deconattn.report.collect", ("done.json", "evaluation.json")),
    "aggregate_analysis": ("deconattn.report.collect_analysis", ("done.json", "analysis.json")),
}


def gathered_key(name: str, runs: str, report: Path) -> str:
    """Key of the gathered tables: the code, the runs (canonical JSON of name → note) and the records they left."""
    import json

    module, files = GATHERERS[name]
    folders = [report.parent.parent / "runs" / run for run in json.loads(runs)]
    records = [[read_record(folder / file)[1] for file in files] for folder in folders]
    baselines = read_record(report / "tables" / "baselines.json")[1] if name == "aggregate" else None
    return short_hash([code_digest(module), runs, records, baselines])


def exhibit_record(report: Path, exhibit: str) -> Path:
    """The JSON beside a table or figure."""
    return report / ("tables" if exhibit.startswith("table") else "figures") / f"{exhibit}.json"


def exhibit_key(exhibit: str, options: str, report: Path) -> str:
    """Key of a table or figure: its code, its options, and the keys of the tables that it reads."""
    names = ["aggregate", *(["aggregate_analysis"] if exhibit in grid.ANALYSED else [])]
    tables = [(read_record(report / "tables" / f"{name}.json")[0] or {}).get("key") for name in names]
    return short_hash([code_digest(*exhibit_modules(exhibit)), options, tables])


def exhibit_modules(exhibit: str) -> list[str]:
    """What drawing an exhibit imports by name."""
    written = ("table_html", "table_latex", "table_text") if exhibit.startswith("table") else ("style",)
    return [f"deconattn.report.{name}" for name in ("exhibits", exhibit, *written)]
