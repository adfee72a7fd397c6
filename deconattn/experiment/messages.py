"""What the schema finds wrong, in words a user can act on: key, value, what is allowed, nearest valid name."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from deconattn.experiment.sources import Section, sections
from deconattn.experiment.yaml_lines import Document, Keys, Problem, dotted
from deconattn.nearest import nearest, not_one_of

NOUNS = {
    "layouts": "layout",
    "tasks": "task",
    "limit": "task",
    "context_lengths": "task",
    "modes": "mode",
    "kind": "kind of source",
    "on_divergence": "way to end",
}
TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def show(value: Any) -> str:
    """A value as a config would have it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def said(keys: Keys, text: str) -> str:
    """`grid.0.variants.1: text`, or the text alone at the top."""
    return f"{dotted(keys)}: {text}" if keys else text


def schema_problems(schema: type[Section], document: Document) -> tuple[list[Problem], set[Keys]]:
    """The schema's findings as lines, and the keys of the values that cannot be relied on."""
    met: dict[int, type[Section]] = {}
    try:
        schema.model_validate(document.data, context=met)
    except ValidationError as error:
        found = error.errors(include_url=False)
    else:
        found = []
    problems: list[Problem] = []
    bad: set[Keys] = set()
    for details in found:
        keys, absent = _keys(details["loc"], document.data)
        bad.add((*keys, *absent))
        if details["type"] == "extra_forbidden":
            # the key that was meant has a value, although it cannot be read
            bad.add((*keys[:-1], nearest(keys[-1], _fields(met, document.data, keys[:-1])) or keys[-1]))
        if details["type"] == "missing" and _misspelt(str(absent[-1]), keys, document.data, met):
            continue
        problems.append(Problem(document.place(keys), _text(details, keys, absent, document.data, met)))
    return problems, bad


def _misspelt(name: str, keys: Keys, data: Any, met: dict[int, type[Section]]) -> bool:
    """Whether a missing key stands there under a name that does not exist, which has a line of its own."""
    fields = _fields(met, data, keys)
    for key in keys:
        data = data[key]
    return any(nearest(key, fields) == name for key in data if key not in fields)


def _keys(loc: Keys, data: Any) -> tuple[Keys, Keys]:
    """Way to the value in the data, and what of the way is not written there.

    The library's own way also holds the kind of a source that it has chosen and a marker for keys of mappings.
    """
    keys: list[str | int] = []
    rest = [part for part in loc if part != "[key]"]
    kind_chosen = False
    while rest:
        if isinstance(data, dict) and rest[0] == data.get("kind") and not kind_chosen:
            kind_chosen = True
        elif isinstance(data, dict) and rest[0] in data or isinstance(data, list) and isinstance(rest[0], int):
            data = data[rest[0]]  # type: ignore[index]
            keys.append(rest[0])
            kind_chosen = False
        else:
            break
        rest = rest[1:]
    return tuple(keys), tuple(rest)


def _text(details: ErrorDetails, keys: Keys, absent: Keys, data: Any, met: dict[int, type[Section]]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "missing":
        return said((*keys, *absent), f"missing: {_fields(met, data, keys)[str(absent[-1])].description}")
    if kind == "extra_forbidden":
        return said(keys, not_one_of(keys[-1], "key here", _fields(met, data, keys[:-1])))
    if details["loc"][-1] == "[key]":
        value = keys[-1]
    if kind == "literal_error":
        return said(keys, not_one_of(value, _noun(keys), _choices(context["expected"])))
    if kind == "union_tag_invalid":
        return said((*keys, "kind"), not_one_of(value["kind"], _noun(("kind",)), _choices(context["expected_tags"])))
    if kind == "union_tag_not_found":
        options = sections(_fields(met, data, keys[:-1])[str(keys[-1])].annotation)
        kinds = [get_args(option.model_fields["kind"].annotation)[0] for option in options]
        return said((*keys, "kind"), f"missing: the kind of source (allowed: {', '.join(kinds)})")
    return said(keys, _plain_text(kind, value, context, details["msg"]))


def _plain_text(kind: str, value: Any, context: dict[str, Any], message: str) -> str:
    if kind in TYPES:
        hint = f'; put it in quotes: "{value}"' if kind == "string_type" and isinstance(value, int | float) else ""
        return f"{show(value)} is not {TYPES[kind]}{hint}"
    if kind in BOUNDS:
        words, bound = BOUNDS[kind]
        return f"{show(value)} is not allowed; must be {words} {context[bound]:g}"
    if kind in ("too_short", "too_long"):
        wanted = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"has {context['actual_length']} entries; must have {wanted}"
    if kind == "string_too_short":
        return f"{show(value)} is empty"
    if kind == "string_pattern_mismatch":
        return f"{show(value)} is not a name here; must match {context['pattern']}"
    return f"{show(value)} is not allowed; {message}"


def _noun(keys: Keys) -> str:
    names = [key for key in keys if isinstance(key, str)]
    return next((NOUNS[name] for name in reversed(names) if name in NOUNS), names[-1].replace("_", " "))


def _choices(expected: str) -> list[str]:
    """Names out of the library's "'a', 'b' or 'c'"."""
    return expected.split("'")[1::2]


def _fields(met: dict[int, type[Section]], data: Any, keys: Keys) -> dict[str, FieldInfo]:
    """Fields of the section that describes the mapping at `keys`."""
    for key in keys:
        data = data[key]
    return met[id(data)].model_fields
