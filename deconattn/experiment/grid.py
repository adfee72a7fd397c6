"""Settings to runs: which models are trained, with which fields, and which exhibit needs which of them (docs/method.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

from deconattn.exhibits import EXHIBITS
from deconattn.experiment.code import class_constant
from deconattn.experiment.schema import GridBlock, ResourceSettings, Settings
from deconattn.experiment.section import given
from deconattn.experiment.training_settings import TrainingSettings, over
from deconattn.mixers import REWEIGHTED

SHORT = {"peak_learning_rate": "lr", "sequences_per_step": "batch", "warmup_steps": "warmup", "weight_decay": "wd"}
"""How some training settings are written in the name of a run."""


@dataclass(frozen=True)
class Run:
    """One model to train: a name from the settings' models, a variant, a layout, a seed.

    `training` holds the settings in which its training differs from that of its model, resolved, in the schema's order.
    """

    model: str
    variant: str
    layout: str
    seed: int
    training: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """`nano-mlp-even-s0`, and what is different in its training: `nano-mlp-even-s0-lr0.001`."""
        parts = [f"{SHORT.get(name, name)}{_text(value)}" for name, value in self.training]
        return "-".join([self.model, self.variant, self.layout, f"s{self.seed}", *parts])


def runs(settings: Settings) -> list[Run]:
    """All runs of the grid, in its order, each once; `standard` has no layout and stands as uniform."""
    found: dict[Run, None] = {}
    for block in settings.grid:
        for model, variant in product(block.models, block.variants):
            layouts = ["uniform"] if variant == "standard" else block.layouts
            for layout, training, seed in product(layouts, _trainings(settings, block, model, variant), block.seeds):
                found[Run(model, variant, layout, seed, training)] = None
    return list(found)


def _trainings(settings: Settings, block: GridBlock, model: str, variant: str) -> list[tuple[tuple[str, Any], ...]]:
    """Each combination of a block's training settings for a variant, as what differs from the model's training."""
    override = block.overrides.get(variant)
    axes = over(given(block.training), given(override.training) if override else {})
    axes = {name: values for name, values in axes.items() if values}
    base, found = settings.trainings[model], []
    for values in product(*axes.values()):
        training = settings.resolved(model, base.model_dump(), dict(zip(axes, values, strict=True))) if axes else base
        changed = [(name, value) for name, value in training if value != getattr(base, name)]
        found.append(tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in changed))
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "_".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def model_fields(settings: Settings, run: Run) -> dict[str, Any]:
    """Fields of the run's model configuration, resolved, with variant and layout, and `pad_vocabulary_to`.

    The vocabulary is the tokenizer's and not known here.
    """
    model = settings.models[run.model]
    fields = model.model_dump(exclude={"training", "corpus", "tokens"})
    fields["num_key_value_heads"] = model.num_key_value_heads or model.num_attention_heads
    fields["attention_bias"] = not model.qk_norm if model.attention_bias is None else model.attention_bias
    own = settings.layouts.get(run.layout)
    layout = f"{run.layout}:{','.join(map(str, sorted(own)))}" if own else run.layout
    return {**fields, "variant": run.variant, "layout": layout}


def training_of(settings: Settings, run: Run) -> TrainingSettings:
    """Training of a run, with `steps` resolved and `tokens` None."""
    changed = {name: list(value) if isinstance(value, tuple) else value for name, value in run.training}
    return settings.trainings[run.model].model_copy(update=changed)


def modes_of(settings: Settings, run: Run) -> list[str]:
    """Modes in which a run is evaluated: hybrids alone have layers to skip, and some variants weights to re-weight."""
    has = {"full": True, "reweighted": run.variant in REWEIGHTED}
    return [mode for mode in settings.evaluation.modes if has.get(mode, run.layout != "uniform")]


def contexts_of(settings: Settings, run: Run) -> dict[str, list[int]]:
    """Task → lengths at which a run is evaluated, by default that of training; a side stream has no map beyond its end."""
    has_end = class_constant(f"deconattn.mixers.{run.variant}", "side_stream") is not None
    end = settings.models[run.model].max_position_embeddings if has_end else math.inf
    given, trained = settings.evaluation.context_lengths, settings.tokens_of(run.model).context_length
    return {task: [n for n in given.get(task, [trained]) if n <= end] for task in settings.evaluation.tasks}


def resources_of(settings: Settings, model: str) -> ResourceSettings:
    """Resources of a model's runs: its own over `default`."""
    sections = [settings.resources[name] for name in ("default", model) if name in settings.resources]
    merged: dict[str, Any] = {}
    for section in sections:
        merged |= given(section)
    return ResourceSettings.model_validate(merged)


def runs_of_exhibit(settings: Settings, exhibit: str) -> list[Run]:
    """Runs of the grid that an exhibit of the settings shows, in the grid's order; none for one of costs."""
    models = settings.exhibits.models_of(exhibit)
    asked = getattr(getattr(settings.exhibits, exhibit), "variants", None)
    shows = EXHIBITS[exhibit].shows
    return [run for run in runs(settings) if run.model in models and shows(run.variant, run.layout, asked)]
