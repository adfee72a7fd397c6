"""Settings to runs: which models are trained, with which fields, and which exhibit needs which of them (SPEC §8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.schema import ResourceSettings, Settings, TrainingSettings
from deconattn.nearest import not_one_of


@dataclass(frozen=True)
class Run:
    """One model to train: a name from the settings' models, a variant, a layout, a seed."""

    model: str
    variant: str
    layout: str
    seed: int


def runs(settings: Settings) -> list[Run]:
    """All runs of the grid, in its order, each once; `standard` has no layout and stands as uniform."""
    found: dict[Run, None] = {}
    for block in settings.grid:
        for model, variant, layout, seed in product(block.models, block.variants, block.layouts, block.seeds):
            found[Run(model, variant, "uniform" if variant == "standard" else layout, seed)] = None
    return list(found)


def model_fields(settings: Settings, run: Run) -> dict[str, Any]:
    """Fields of the run's model configuration, resolved, with variant and layout, and `pad_vocabulary_to`.

    The vocabulary is the tokenizer's and not known here.
    """
    model = settings.models[run.model]
    fields = model.model_dump(exclude={"training"})
    fields["num_key_value_heads"] = model.num_key_value_heads or model.num_attention_heads
    fields["attention_bias"] = not model.qk_norm if model.attention_bias is None else model.attention_bias
    return {**fields, "variant": run.variant, "layout": run.layout}


def training_of(settings: Settings, model: str) -> TrainingSettings:
    """Training of a model: its own settings over the general ones, with `steps` resolved and `tokens` None.

    The length is resolved so that the same training, said in steps or in tokens, is the same run.
    """
    own = settings.models[model].training
    merged = _given(settings.training)
    changes = _given(own)
    if own.steps is not None or own.tokens is not None:
        merged["steps"] = merged["tokens"] = None
    else:
        changes = {key: value for key, value in changes.items() if key not in ("steps", "tokens")}
    training = TrainingSettings.model_validate(merged | changes)
    steps = training.total_steps(settings.tokens.context_length)
    return training.model_copy(update={"steps": steps, "tokens": None})


def resources_of(settings: Settings, model: str) -> ResourceSettings:
    """Resources of a model's runs: its own over `default`."""
    sections = [settings.resources[name] for name in ("default", model) if name in settings.resources]
    merged: dict[str, Any] = {}
    for section in sections:
        merged |= _given(section)
    return ResourceSettings.model_validate(merged)


def _both(run: Run) -> bool:
    return run.layout in ("uniform", "even")


SCORED = ("rndembqk", "nonapproximate")
"""Variants whose pre-softmax scores the paper draws (Figures 2 and 6)."""

COSTED = ("table5", "table6", "table7", "table8", "figure_costs")
"""Exhibits that show what the mixers cost, of models that need not be trained."""

NEEDS: dict[str, Callable[[Run], bool]] = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "figure4", "figure5"), _both),
    # mlp has no attention map
    **dict.fromkeys(("figure1", "figure7", "figure8"), lambda run: _both(run) and run.variant != "mlp"),
    **dict.fromkeys(("figure2", "figure6"), lambda run: _both(run) and run.variant in SCORED),
    "figure3": lambda run: run.layout != "uniform" or run.variant == "standard",
    **dict.fromkeys(COSTED, lambda run: False),  # costs are those of a shape, trained or not
}
"""Which runs of its models each exhibit needs (SPEC §8)."""

ANALYSED = ("figure1", "figure2", "figure6", "figure7", "figure8")
"""Exhibits that look into the attention of trained models."""


def runs_of_exhibit(settings: Settings, exhibit: str) -> list[Run]:
    """Runs of the grid that an exhibit shows, in the grid's order.

    Raises:
        UserError: an exhibit that the settings do not ask for.
    """
    if exhibit not in settings.exhibits:
        raise UserError(not_one_of(exhibit, "exhibit of these settings", settings.exhibits))
    models = settings.exhibits.models_of(exhibit)
    variants = getattr(getattr(settings.exhibits, exhibit), "variants", None)
    found = [run for run in runs(settings) if run.model in models and NEEDS[exhibit](run)]
    return [run for run in found if variants is None or run.variant in (*variants, "standard")]


def _given(section: TrainingSettings | ResourceSettings) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.model_fields_set}
