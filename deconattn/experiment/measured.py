"""What the `measure` stage is asked for a configuration, and where its results lie.

A cheap stage: its place is named by what is measured, and its code is compared as a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import code_digest
from deconattn.experiment.grid import COSTED, Run
from deconattn.experiment.identity import RESULTS, short_hash
from deconattn.experiment.settings import Settings


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


def measure_code(settings: Settings, model: str) -> str:
    """Digest of the code that measures, the mixers that it is asked for among it."""
    return code_digest(*measure_modules(measure_spec(settings, model)["variants"]))


def measure_modules(variants: Iterable[str]) -> list[str]:
    """What a measurement imports by name."""
    return ["deconattn.analysis.measure", *(f"deconattn.mixers.{variant}" for variant in variants)]
