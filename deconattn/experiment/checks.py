"""What no single setting can know: whether the parts of a config fit each other.

Each check yields the keys of a value and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from deconattn.data.definitions import HELDOUT, problem
from deconattn.exhibits import EXHIBITS
from deconattn.experiment.grid import resources_of
from deconattn.experiment.schema import Settings
from deconattn.experiment.section import Keys, Section, given
from deconattn.experiment.sources import TASK_PACKAGES, FolderTasks, PackageTasks, RecallCorpus
from deconattn.experiment.training_settings import BlockTraining, TrainingSettings, over
from deconattn.layouts import LAYOUTS, standard_layers
from deconattn.nearest import not_one_of

Findings = Iterator[tuple[Keys, str]]
Levels = dict[Keys, Section]
"""Sections that give the same settings by their keys, later over earlier."""


def findings(settings: Settings) -> list[tuple[Keys, str]]:
    """What does not fit."""
    found = [
        *_contexts_fit(settings),
        *_recall_fits(settings),
        *_trainings_fit(settings),
        *_resources_fit(settings),
        *_models_are_known(settings),
        *_blocks_fit(settings),
        *_tasks_are_known(settings),
    ]
    # where the grid is wrong itself, what is not in it would be named twice
    if all(keys[0] != "grid" for keys, _ in found):
        found += _exhibits_are_run(settings)
    return list(dict.fromkeys(found))  # what does not fit any model is said once


def _each(keys: Keys, values: Iterable[Any]) -> list[tuple[Keys, Any]]:
    return [((*keys, index), value) for index, value in enumerate(values)]


def _giver(levels: Levels, name: str) -> Keys:
    """Keys of the value that counts."""
    return next((*keys, name) for keys, section in reversed(levels.items()) if name in section.model_fields_set)


def _contexts_fit(settings: Settings) -> Findings:
    """Training stays within a model's positions; an evaluation goes beyond them only beside the length of training."""
    for name, model in settings.models.items():
        end, trained = model.max_position_embeddings, settings.tokens_of(name).context_length
        if trained > end:
            text = f"{trained} is longer than the side stream of model {name!r}"
            yield _length_of(settings, name), f"{text}; must be at most its max_position_embeddings, {end}"
        if settings.is_recall(name):
            continue
        for task, lengths in settings.evaluation.context_lengths.items():
            if max(lengths) > end and trained not in lengths:
                yield (
                    ("evaluation", "context_lengths", task, lengths.index(max(lengths))),
                    f"{max(lengths)} is beyond the {end} positions of model {name!r} (max_position_embeddings), where a side "
                    f"stream has no map; then the context length of training, {trained}, must be among the lengths",
                )


def _length_of(settings: Settings, model: str) -> Keys:
    """Keys of the context length that counts for a model."""
    return (*(("models", model) if settings.models[model].tokens else ()), "tokens", "context_length")


def _recall_fits(settings: Settings) -> Findings:
    """Sequences of recall have room for pairs and queries; an exhibit shows evaluations of the kind that there are."""
    for name, model in settings.models.items():
        corpus, length = settings.corpus_of(name), settings.tokens_of(name).context_length
        if isinstance(corpus, RecallCorpus) and (length % 2 or length <= 2 * max(corpus.pairs)):
            text = (
                f"{length} is not allowed; must be even, and more than the {2 * max(corpus.pairs)} tokens of all pairs"
            )
            yield _length_of(settings, name), text
        if model.tokens and not model.corpus:
            yield ("models", name, "tokens"), "is for a corpus of the model's own; must be left out, or corpus given"
    for exhibit in settings.exhibits:
        if exhibit == "table_findings" or "evaluation" not in EXHIBITS[exhibit].reads:
            continue
        shows = "recall" if exhibit == "figure_recall" else "tasks"
        for keys, name in _models_of(settings, exhibit):
            if name in settings.models and settings.is_recall(name) != (shows == "recall"):
                kind = settings.corpus_of(name).kind
                yield keys, f"shows evaluations of {shows}, and the corpus of model {name!r} is of kind {kind}"


def _models_are_known(settings: Settings) -> Findings:
    """Models that other sections name."""
    named: list[tuple[Keys, Any]] = [(("resources", name), name) for name in settings.resources if name != "default"]
    for here, block in _each(("grid",), settings.grid):
        named += _each((*here, "models"), block.models)
    for exhibit in settings.exhibits:
        named += _models_of(settings, exhibit)
    for keys, name in named:
        if name not in settings.models:
            also = ["default"] if keys[0] == "resources" else []
            yield keys, not_one_of(name, "model", [*also, *settings.models])


def _models_of(settings: Settings, exhibit: str) -> list[tuple[Keys, Any]]:
    options = getattr(settings.exhibits, exhibit)
    if hasattr(options, "model"):
        return [(("exhibits", exhibit, "model"), options.model)]
    return _each(("exhibits", exhibit, "models"), options.models)


def _trainings(settings: Settings) -> Iterator[tuple[str, Levels, TrainingSettings]]:
    """Each model's training, and each that a block of the grid makes of it."""
    found: list[tuple[str, Levels]] = []
    for name, model in settings.models.items():
        base: Levels = {("training",): settings.training, ("models", name, "training"): model.training}
        found.append((name, base))
        for here, block in _each(("grid",), settings.grid):
            if name in block.models:
                of_block = base | {(*here, "training"): block.training}
                found.append((name, of_block))
                for variant, override in block.overrides.items():
                    found.append((name, of_block | {(*here, "overrides", variant, "training"): override.training}))
    for name, levels in found:
        axes = over(*map(_axes, levels.values()))
        for values in product(*(values or [None] for values in axes.values())):
            yield name, levels, TrainingSettings.model_validate(dict(zip(axes, values, strict=True)))


def _axes(section: Section) -> dict[str, list[Any]]:
    """The given training settings as lists of values; a block has lists already."""
    return {name: value if isinstance(section, BlockTraining) else [value] for name, value in given(section).items()}


def _trainings_fit(settings: Settings) -> Findings:
    """Each training is for `steps` or for `tokens`, warm-up ends before that, and processes share a step's sequences."""
    for model, levels, training in _trainings(settings):
        processes = resources_of(settings, model).processes
        if training.sequences_per_step % processes:
            text = f"{processes} does not divide sequences_per_step {training.sequences_per_step}"
            yield _giver(_resources(settings, model), "processes"), text
        if training.steps and training.tokens:
            yield _giver(levels, "tokens"), "steps and tokens are both given; must be one of them"
        elif not training.steps and not training.tokens:
            yield ("training",), "neither steps nor tokens is given; must be one of them"
        elif (steps := training.total_steps(settings.tokens_of(model).context_length)) <= training.warmup_steps:
            warmup, length = training.warmup_steps, "steps" if training.steps else "tokens"
            if "warmup_steps" in training.model_fields_set:
                text = f"{warmup} is not allowed; must be less than the number of steps, {steps}"
                yield _giver(levels, "warmup_steps"), text
            else:
                text = f"{steps} steps are not more than warmup_steps, {warmup} where none is given"
                yield _giver(levels, length), text


def _resources(settings: Settings, model: str) -> Levels:
    return {("resources", name): settings.resources[name] for name in ("default", model) if name in settings.resources}


def _resources_fit(settings: Settings) -> Findings:
    """Processes are spread evenly over nodes, and have a GPU each or none."""
    for model in settings.models:
        levels, r = _resources(settings, model), resources_of(settings, model)
        if r.gpus and r.gpus != r.processes:
            text = f"{r.gpus} is not allowed for model {model!r}; must be 0, or one for each process, {r.processes}"
            yield _giver(levels, "gpus"), text
        if r.processes % r.nodes:
            text = f"{r.nodes} is not allowed for model {model!r}; must divide its number of processes, {r.processes}"
            yield _giver(levels, "nodes"), text


def _blocks_fit(settings: Settings) -> Findings:
    """Overrides are of a block's variants; layouts are known, and mean something in models of that many layers."""
    known = [*LAYOUTS, *settings.layouts]
    for here, block in _each(("grid",), settings.grid):
        for variant in block.overrides:
            if variant not in block.variants:
                yield (*here, "overrides", variant), not_one_of(variant, "variant of this block", block.variants)
        for keys, layout in _each((*here, "layouts"), block.layouts):
            if layout not in known:
                yield keys, not_one_of(layout, "layout", known)
            elif layout != "uniform" and set(block.variants) - {"standard"}:
                models = [name for name in block.models if name in settings.models]
                yield from ((keys, text) for name in models if (text := _misfit(settings, layout, name)))


def _misfit(settings: Settings, layout: str, model: str) -> str:
    """A layout that names a layer beyond the last one, or that keeps all layers or none."""
    n, own = settings.models[model].num_hidden_layers, settings.layouts.get(layout, [])
    if own and max(own) > n:
        return f"{layout!r} names layer {max(own)}, and model {model!r} has {n} (num_hidden_layers)"
    kept = len(own or standard_layers(layout, n))
    if 0 < kept < n:
        return ""
    words, twin = ("all layers", "variant 'standard'") if kept else ("no layer", "'uniform'")
    allowed = [one for one in LAYOUTS if one == "uniform" or 0 < len(standard_layers(one, n)) < n]
    return (
        f"{layout!r} keeps {words} standard in model {model!r} (num_hidden_layers {n}), "
        f"which is {twin} under another name (allowed: {', '.join(allowed)})"
    )


def _exhibits_are_run(settings: Settings) -> Findings:
    """What is to be drawn is run, but for models whose costs alone are shown."""
    in_grid: dict[str, set[str]] = {}
    for block in settings.grid:
        for model in block.models:
            in_grid.setdefault(model, set()).update(block.variants)
    for exhibit in settings.exhibits:
        models = [(keys, model) for keys, model in _models_of(settings, exhibit) if model in settings.models]
        for keys, model in models:
            if model not in in_grid and not EXHIBITS[exhibit].costed:
                yield keys, f"no run of the grid is of model {model!r} (in the grid: {', '.join(in_grid)})"
        variants = getattr(getattr(settings.exhibits, exhibit), "variants", None)
        for keys, variant in _each(("exhibits", exhibit, "variants"), variants or ()):
            if any(variant not in in_grid.get(model, {variant}) for _, model in models):
                yield keys, f"no run of the grid is of variant {variant!r} and model {models[0][1]!r}"


def _tasks_are_known(settings: Settings) -> Findings:
    """Tasks are lm-eval's or the config's own, of a kind that can be scored, and the source has them."""
    evaluation, own = settings.evaluation, settings.evaluation.definitions
    for task, path in own.items():
        if text := problem(task, path):
            yield ("evaluation", "definitions", task), text
    holder, offered = _offered(settings.tasks)
    for keys, task in _each(("evaluation", "tasks"), evaluation.tasks):
        if text := problem(task) if task not in own else None:
            yield keys, text
        elif offered is not None and task not in (*offered, HELDOUT):
            yield keys, f"{task!r} is not offered by {holder} (allowed: {', '.join([*offered, HELDOUT])})"
    named = [(("evaluation", key), getattr(evaluation, key)) for key in ("limit", "context_lengths")]
    for keys, tasks in [*named, (("tasks", "revisions"), getattr(settings.tasks, "revisions", ()))]:
        for task in tasks or ():
            known = {*own, *(evaluation.tasks or ()), *(["default"] if keys[1] == "limit" else [])}
            if task not in known and (text := problem(task)):
                yield (*keys, task), text


def _offered(source: Any) -> tuple[str, list[str] | None]:
    """What a source is called, and the tasks that it has; None where any that a definition describes may be there."""
    if isinstance(source, PackageTasks):
        return f"package {source.package!r}", list(TASK_PACKAGES[source.package])
    if isinstance(source, FolderTasks):
        files = Path(source.path, "tasks").glob("*.parquet")
        return f"folder {source.path!r}", sorted(file.stem for file in files)
    return "", None
