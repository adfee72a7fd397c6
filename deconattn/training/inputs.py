"""What a training is given, checked before anything long begins: a spec of the right shape, files that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deconattn import mixers
from deconattn.errors import UserError
from deconattn.experiment.load import schema_errors
from deconattn.experiment.record import RECORD, SPEC, read_record
from deconattn.experiment.schema import ModelSettings
from deconattn.experiment.section import Section
from deconattn.experiment.training_settings import TrainingSettings
from deconattn.experiment.yaml_lines import dotted
from deconattn.files import TOKENIZER_FILES, read_json
from deconattn.layouts import standard_layers
from deconattn.nearest import not_one_of

SECTIONS: dict[str, type[Section]] = {"model": ModelSettings, "training": TrainingSettings}
KEYS = {
    "run": str, "hash": str, "code": str, "seed": int, "tokens": dict, "model": dict, "training": dict,
    "model.name": str, "model.variant": str, "model.layout": str,
    # What has a default in a config has none here: a spec states all.
    **{f"training.{key}": object for key in TrainingSettings.model_fields if key != "tokens"}, "training.steps": int,
}  # fmt: skip


def check_inputs(run_folder: Path, tokenizer: Path | None, side_text: Path | None) -> None:
    """Check what a training will read at its start or at its very end.

    Raises:
        UserError: a file that is not there, or is not of the shape that it should have.
    """
    path = run_folder / SPEC
    spec = read_json(path)
    if problem := _problem(spec):
        raise UserError(f"{path}: {problem}")
    if (run_folder / RECORD).exists():
        key = (read_record(run_folder) or {}).get("key")
        if not isinstance(key, str):
            raise UserError(f"{run_folder / RECORD}: not a record of a training (JSON object with a key)")
        if key.startswith(f"{spec['hash']}-"):
            return  # finished: it reads nothing more
    if tokenizer and (missing := [name for name in TOKENIZER_FILES if not (tokenizer / name).is_file()]):
        files = " and ".join(TOKENIZER_FILES)
        raise UserError(f"{tokenizer}: --tokenizer must be a folder with {files}; no {missing[0]}")
    if side_text and not side_text.is_file():
        raise UserError(f"{side_text}: no such file (--side-text)")


def _problem(spec: Any) -> str | None:
    """What is wrong with a spec. Keys that are not known here are a later or an earlier version's."""
    if not isinstance(spec, dict):
        return "not a spec (JSON object)"
    parts = {section: spec[section] for section in SECTIONS if isinstance(spec.get(section), dict)}
    found = spec | {f"{section}.{key}": value for section, part in parts.items() for key, value in part.items()}
    for key, kind in KEYS.items():
        if key not in found or not isinstance(found[key], kind):
            return f"{key}: {f'{found[key]!r} is not of type {kind.__name__}' if key in found else 'missing'}"
    for section, schema in SECTIONS.items():
        known = {key: value for key, value in parts[section].items() if key in schema.model_fields}
        for keys, what in schema_errors(schema, known):
            return dotted((section, *keys), what)
    model = spec["model"]
    if model["variant"] not in mixers.names():
        return f"model.variant: {not_one_of(model['variant'], 'variant', mixers.names())}"
    try:
        standard_layers(model["layout"], model["num_hidden_layers"])
    except UserError as error:
        return f"model.layout: {error}"
    return None
