"""What no single key can know: whether the parts of a config fit each other.

The checks read the plain data, not the validated settings, and pass over what is missing or wrong already: so they find
what they can in a config that has other errors too. Each yields the keys of a value and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from deconattn import mixers
from deconattn.experiment.grid import COSTED
from deconattn.experiment.schema import (
    Exhibits,
    ModelSettings,
    TrainingSettings,
    steps_for,
)
from deconattn.experiment.view import View
from deconattn.experiment.yaml_lines import Keys
from deconattn.layouts import LAYOUTS, standard_layers
from deconattn.nearest import not_one_of

Finding = tuple[Keys, str]


def models_fit(view: View) -> Iterator[Finding]:
    """Heads divide the hidden size and are of even size; key and value heads divide heads."""
    for name in view.models:
        here = ("models", name)
        if name == "default":
            yield here, "'default' cannot name a model: it names the resources of all models"
        model = view.section(ModelSettings, *here)
        hidden, heads = model["hidden_size"], model["num_attention_heads"]
        if hidden and heads and hidden % heads:
            yield (*here, "num_attention_heads"), f"{heads} heads do not divide hidden_size {hidden}"
        elif hidden and heads and hidden // heads % 2:
            yield (
                (*here, "num_attention_heads"),
                f"{heads} heads of hidden_size {hidden} have size {hidden // heads}; RoPE needs an even one",
            )
        shared = model["num_key_value_heads"]
        if shared and heads and heads % shared:
            yield (*here, "num_key_value_heads"), f"{shared} does not divide num_attention_heads {heads}"


def contexts_fit(view: View) -> Iterator[Finding]:
    """No context is longer than a model's side stream."""
    contexts: list[tuple[Keys, Any]] = [(("tokens", "context_length"), view.get("tokens", "context_length"))]
    for keys, _ in view.items("evaluation", "context_lengths"):
        contexts += view.items(*keys)
    for name in view.models:
        longest = view.section(ModelSettings, "models", name)["max_position_embeddings"]
        for keys, length in contexts:
            if length and longest and length > longest:
                yield (
                    keys,
                    f"{length} is longer than the side stream of model {name!r}; "
                    f"must be at most its max_position_embeddings, {longest}",
                )


def training_is_complete(view: View) -> Iterator[Finding]:
    """Each model trains for `steps` or for `tokens`, and warm-up ends before that."""
    for name in view.models:
        training = _training(view, name)
        if "steps" in training and "tokens" in training:
            yield training["tokens"][0], "steps and tokens are both given; must be one of them"
        elif "steps" not in training and "tokens" not in training and ("training",) not in view.bad:
            yield ("training",), "neither steps nor tokens is given; must be one of them"
        else:
            yield from _warmup(view, training)


def _training(view: View, model: str) -> dict[str, tuple[Keys, Any]]:
    """What is written of a model's training: keys and value of each setting, its own over the general."""
    found: dict[str, tuple[Keys, Any]] = {}
    for section in (("training",), ("models", model, "training")):
        values = {key: view.get(*section, key) for key in TrainingSettings.model_fields}
        given = {key: value for key, value in values.items() if value is not None or (*section, key) in view.bad}
        if given.keys() & {"steps", "tokens"}:
            found.pop("steps", None), found.pop("tokens", None)
        found |= {key: ((*section, key), value) for key, value in given.items()}
    return found


def _warmup(view: View, training: dict[str, tuple[Keys, Any]]) -> Iterator[Finding]:
    defaults = {name: info.default for name, info in TrainingSettings.model_fields.items()}
    values = {**defaults, **{name: value for name, (_, value) in training.items()}}
    steps, tokens, sequences = (values[name] for name in ("steps", "tokens", "sequences_per_step"))
    context, warmup = view.get("tokens", "context_length"), values["warmup_steps"]
    if steps is None and tokens and sequences and context:
        steps = steps_for(tokens, sequences * context)
    if steps is None or warmup is None or warmup < steps:
        return
    if "warmup_steps" in training:
        yield (
            training["warmup_steps"][0],
            f"{warmup} is not allowed; must be less than the number of steps, {steps}",
        )
    else:
        keys = training["steps" if "steps" in training else "tokens"][0]
        yield keys, f"{steps} steps are not more than warmup_steps, {warmup} where none is given"


def grid_is_known(view: View) -> Iterator[Finding]:
    """Models and variants of the grid exist, and its layouts mean something in models of that many layers."""
    variants = mixers.names()
    for block, _ in view.items("grid"):
        for keys, model in view.items(*block, "models"):
            if not view.has_model(model):
                yield keys, not_one_of(model, "model", view.models)
        for keys, variant in view.items(*block, "variants"):
            if variant not in variants:
                yield keys, not_one_of(variant, "variant", variants)
        if any(variant != "standard" for _, variant in view.items(*block, "variants")):
            for keys, layout in view.items(*block, "layouts"):
                yield from _mislabelled(view, keys, layout, [name for _, name in view.items(*block, "models")])


def _mislabelled(view: View, keys: Keys, layout: str, models: list[str]) -> Iterator[Finding]:
    for model in models:
        n = view.get("models", model, "num_hidden_layers")
        if not n or layout == "uniform":
            continue
        allowed = [name for name in LAYOUTS if name == "uniform" or 0 < len(standard_layers(name, n)) < n]
        if layout not in allowed:
            kept, twin = (
                ("all layers", "variant 'standard'") if standard_layers(layout, n) else ("no layer", "'uniform'")
            )
            yield (
                keys,
                f"{layout!r} keeps {kept} standard in model {model!r} (num_hidden_layers {n}), "
                f"which is {twin} under another name (allowed: {', '.join(allowed)})",
            )


def exhibits_are_in_the_grid(view: View) -> Iterator[Finding]:
    """What is to be drawn is also run; not asked where the grid has errors of its own, which would say it twice."""
    in_grid: dict[str, set[str]] = {}
    for block, _ in view.items("grid"):
        for _, model in view.items(*block, "models"):
            in_grid.setdefault(model, set()).update(variant for _, variant in view.items(*block, "variants"))
    grid_is_right = not any(keys[0] == "grid" for keys in view.bad) and not list(grid_is_known(view))
    for exhibit in Exhibits.model_fields:
        here = ("exhibits", exhibit)
        one = [((*here, "model"), view.get(*here, "model"))]
        models = [(keys, name) for keys, name in [*one, *view.items(*here, "models")] if name is not None]
        for keys, model in models:
            if not view.has_model(model):
                yield keys, not_one_of(model, "model", view.models)
            elif grid_is_right and model not in in_grid and exhibit not in COSTED:
                yield keys, f"no run of the grid is of model {model!r} (in the grid: {', '.join(in_grid)})"
        for keys, variant in view.items(*here, "variants"):
            if variant not in mixers.names():
                yield keys, not_one_of(variant, "variant", mixers.names())
            elif grid_is_right and any(variant not in in_grid.get(model, {variant}) for _, model in models):
                yield keys, f"no run of the grid is of variant {variant!r} and model {models[0][1]!r}"


def costs_are_known(view: View) -> Iterator[Finding]:
    """The variants whose costs are to be measured exist."""
    for keys, variant in view.items("costs", "variants"):
        if variant not in mixers.names():
            yield keys, not_one_of(variant, "variant", mixers.names())


def resources_fit(view: View) -> Iterator[Finding]:
    """Resources are of models that exist; processes share an update's sequences evenly and have a GPU each or none."""
    for keys, name in view.items("resources"):
        if name != "default" and not view.has_model(name):
            yield keys, not_one_of(name, "model", ["default", *view.models])
    for name in view.models:
        sequences = _training(view, name).get("sequences_per_step", ((), 256))[1]
        keys, processes = _resource(view, name, "processes", 1)
        if sequences and processes and sequences % processes:
            yield keys, f"{processes} does not divide sequences_per_step {sequences}"
        keys, gpus = _resource(view, name, "gpus", 0)
        if gpus and processes and gpus != processes:
            yield keys, f"{gpus} is not allowed for model {name!r}; must be 0, or one for each process, {processes}"
        keys, nodes = _resource(view, name, "nodes", 1)
        if nodes and processes and processes % nodes:
            yield keys, f"{nodes} is not allowed for model {name!r}; must divide its number of processes, {processes}"


def _resource(view: View, model: str, name: str, default: int) -> tuple[Keys, Any]:
    for section in (("resources", model), ("resources", "default")):
        if view.is_given(*section, name):
            return (*section, name), view.get(*section, name)
    return ("resources",), default


def nothing_twice(view: View) -> Iterator[Finding]:
    """No task and no mode is named twice, nor anything of the costs."""
    lists = [("evaluation", name) for name in ("tasks", "modes")]
    for here in [*lists, *(("costs", name) for name in ("lengths", "batch_sizes", "variants"))]:
        seen: set[Any] = set()
        for keys, value in view.items(*here):
            if value in seen:
                yield keys, f"{value!r} is named twice"
            seen.add(value)


CHECKS: tuple[Callable[[View], Iterator[Finding]], ...] = (
    models_fit,
    contexts_fit,
    training_is_complete,
    grid_is_known,
    exhibits_are_in_the_grid,
    costs_are_known,
    resources_fit,
    nothing_twice,
)
