"""What the `measure` stage is asked for a configuration, where its results lie, and whether they are up to date.

Its place is named by what is measured; the record beside it has the code as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import code_digest
from deconattn.experiment.grid import COSTED, Run
from deconattn.experiment.identity import RESULTS, short_hash
from deconattn.experiment.records import read_record
from deconattn.experiment.settings import Settings
from deconattn.experiment.states import FRESH, GATHERED, MISSING, State, States, differences
from deconattn.report.sums import sums_of

MEASURED = (".parquet", "-differences.parquet", ".json")
"""Ends of the files that a measurement leaves, its record's last."""


def measured_models(settings: Settings) -> list[str]:
    """Models that the exhibits about costs show, each once."""
    shown = [model for name in settings.exhibits if name in COSTED for model in settings.exhibits.models_of(name)]
    return list(dict.fromkeys(shown))


def measure_spec(settings: Settings, model: str) -> dict[str, Any]:
    """What is measured of a model: its shape, variants, batches and lengths, and how often."""
    # The layout says which layers have the mixer; what is measured is one of them.
    fields = grid.model_fields(settings, Run(model, "standard", "uniform", 0))
    shape = {name: value for name, value in fields.items() if name not in ("variant", "layout", "pad_vocabulary_to")}
    costs = settings.costs.model_dump(mode="json")
    variants = costs["variants"] or list(dict.fromkeys(v for block in settings.grid for v in block.variants))
    return {"model": {"name": model, **shape}, **costs, "variants": variants}


def measured_path(settings: Settings, model: str) -> Path:
    """Where the costs of a model lie, without `.parquet`; `-differences.parquet` stands beside it."""
    return RESULTS / "costs" / f"{model}-{short_hash(measure_spec(settings, model))}"


def costs_spec(settings: Settings, model: str) -> dict[str, Any]:
    """All that decides the costs of a model: what is measured, and the code."""
    return {**measure_spec(settings, model), "code": measure_code(settings, model)}


def measuring(states: States, model: str) -> State:
    """Of the costs of a model, by the record beside them."""
    path = measured_path(states.ident.settings, model)
    files = [path.with_name(f"{path.name}{tail}") for tail in MEASURED]
    if not all(file.is_file() for file in files):
        return MISSING
    record, _ = read_record(files[-1])
    changes = differences((record or {}).get("spec") or {}, costs_spec(states.ident.settings, model))
    return states.unless_asked(State("stale", "; ".join(changes)) if changes else FRESH, "measure", files)


def gathering_costs(states: States, partial: bool) -> State:
    """Of the tables of all models' costs. With `partial` they hold what is there; else all is to be measured first."""
    settings, tables = states.ident.settings, states.ident.report / "tables"
    files = [tables / name for name in GATHERED["aggregate_costs"]]
    if not all(file.is_file() for file in files):
        return MISSING
    models = measured_models(settings)
    record, _ = read_record(files[-1])
    now = {
        "code": code_digest("deconattn.report.collect_costs"),
        "measured": sums_of(measured_path(settings, model) for model in models),
    }
    if {key: (record or {}).get(key) for key in now} != now:
        return State("stale", "other measurements or code")
    ready = partial or all(measuring(states, model).fresh for model in models)
    return states.unless_asked(FRESH, "aggregate_costs", files) if ready else MISSING


def measure_code(settings: Settings, model: str) -> str:
    """Digest of the code that measures, the mixers that it is asked for among it."""
    return code_digest(*measure_modules(measure_spec(settings, model)["variants"]))


def measure_modules(variants: Iterable[str]) -> list[str]:
    """What a measurement imports by name."""
    return ["deconattn.analysis.measure", *(f"deconattn.mixers.{variant}" for variant in variants)]
