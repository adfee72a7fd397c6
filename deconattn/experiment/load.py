"""Settings of an experiment from YAML files: typed, complete, and every error at once with its file and line.

Imports no torch, pandas, transformers or datasets: the workflow engine loads settings in every job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from deconattn.experiment.checks import findings
from deconattn.experiment.schema import Settings
from deconattn.experiment.section import Keys, Section, sections
from deconattn.experiment.yaml_lines import COMMAND_LINE, ConfigError, Problem, dotted, read
from deconattn.nearest import nearest, not_one_of

__all__ = ["ConfigError", "Settings", "flag", "load_settings", "schema_errors"]

_MAPPING = "{value} is not a mapping (key: value)"
MESSAGES = {
    "int_type": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "string_type": "{value} is not text",
    "bool_type": "{value} is not true or false",
    "list_type": "{value} is not a list",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "greater_than": "{value} is not allowed; must be greater than {gt:g}",
    "greater_than_equal": "{value} is not allowed; must be at least {ge:g}",
    "less_than": "{value} is not allowed; must be less than {lt:g}",
    "too_short": "has {actual_length} entries; must have at least {min_length}",
    "string_pattern_mismatch": "{value} is not a name here; must match {pattern}",
    "value_error": "{error}",
}
"""Types of pydantic's errors → what users read; of others, pydantic's own words."""


def flag(name: str, value: Any) -> bool:
    """A flag that stands in --config beside settings, as `partial` does: true or false, also as Snakemake leaves it.

    Raises:
        ConfigError: anything else, which would pass for true.
    """
    words = {"true": True, "1": True, "false": False, "0": False}
    found = words.get(str(value).lower()) if isinstance(value, bool | str | int) else None
    if found is None:
        raise ConfigError([Problem(COMMAND_LINE, f"{name}: {value!r} is not allowed; must be true or false")])
    return found


def load_settings(paths: Sequence[str | Path], overrides: Mapping[str, Any] | Sequence[str] | None = None) -> Settings:
    """Read and check a config.

    Files are merged, later over earlier, `overrides` (from the command line: plain data, or texts `key=value` whose
    values are YAML) over all: mappings key by key, anything else whole; a mapping that names its `kind` replaces the
    whole source. Paths in a config are relative to the working directory.

    Raises:
        ConfigError: every value that is wrong by itself or, where there is none, everything that does not fit together.
    """
    document = read(paths, overrides)
    errors = schema_errors(Settings, document.data)
    if not errors:
        settings = Settings.model_validate(document.data)
        errors = findings(settings)
    problems = [Problem(document.place(keys), dotted(keys, text)) for keys, text in dict.fromkeys(errors)]
    if problems := document.problems + problems:
        raise ConfigError(problems)
    return settings


def schema_errors(schema: type[Section], data: dict[str, Any]) -> list[tuple[Keys, str]]:
    """What the schema refuses in plain data: the keys of each value, and what is wrong with it."""
    classes: dict[int, type[Section]] = {}
    try:
        schema.model_validate(data, context=classes)
    except ValidationError as error:
        found = [(_keys(details, data), details) for details in error.errors(include_url=False)]
    else:
        return []

    def fields_at(keys: Keys) -> dict[str, FieldInfo]:
        mapping: Any = data
        for key in keys:
            mapping = mapping[key]
        return classes[id(mapping)].model_fields

    unknown = [keys for keys, details in found if details["type"] == "extra_forbidden"]
    misspelt = {(*keys[:-1], nearest(keys[-1], fields_at(keys[:-1]))) for keys in unknown}
    errors = []
    for keys, details in found:
        if details["type"] == "extra_forbidden":
            errors.append((keys, not_one_of(keys[-1], "key here", fields_at(keys[:-1]))))
        elif details["type"] == "union_tag_not_found":
            annotation = fields_at(keys[:-2])[str(keys[-2])].annotation
            kinds = [get_args(section.model_fields["kind"].annotation)[0] for section in sections(annotation)]
            errors.append((keys, f"missing: the kind of source (allowed: {', '.join(kinds)})"))
        elif details["type"] != "missing":
            errors.append((keys, _text(details)))
        elif keys not in misspelt:  # which has a line of its own
            errors.append((keys, f"missing: {fields_at(keys[:-1])[str(keys[-1])].description}"))
    return errors


def _keys(details: ErrorDetails, data: Any) -> Keys:
    """Path in the data; pydantic's own path also names the kind of source that it has chosen, and marks keys."""
    keys: list[str | int] = []
    source = None
    for part in details["loc"]:
        if isinstance(data, dict) and data.get("kind") == part and source is not data:
            source = data
        elif part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int):
            data = data[part]
            keys.append(part)
    if details["type"] == "missing" and keys[-1:] != [details["loc"][-1]]:
        keys.append(details["loc"][-1])
    return (*keys, "kind") if details["type"].startswith("union_tag") else tuple(keys)


def _text(details: ErrorDetails) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "literal_error":
        noun = "key here" if details["loc"][-1] == "[key]" else "value here"
        return not_one_of(value, noun, _choices(context["expected"]))
    if kind == "union_tag_invalid":
        return not_one_of(value["kind"], "kind of source", _choices(context["expected_tags"]))
    if kind not in MESSAGES:
        return f"{_shown(value)} is not allowed; {details['msg']}"
    hint = f'; put it in quotes: "{value}"' if kind == "string_type" and isinstance(value, int | float) else ""
    return MESSAGES[kind].format(value=_shown(value), **context) + hint


def _choices(expected: str) -> list[str]:
    """Names from pydantic's "'a', 'b' or 'c'"."""
    return expected.split("'")[1::2]


def _shown(value: Any) -> str:
    """A value as a config has it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
