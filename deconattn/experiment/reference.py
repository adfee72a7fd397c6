"""The page of all settings, docs/settings.md, rendered from the schema.

`python -m deconattn.experiment.reference docs/settings.md` writes it.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from deconattn.experiment.schema import Settings
from deconattn.experiment.sources import Section, sections
from deconattn.files import atomic_write

HEAD = """# Settings

All that a config may say. A key that stands in none of these tables is an error, and so is a value of another type; all
errors of a config are shown at once, each with its file and line. Several files given together are merged, later over
earlier, and the command line over all: mappings key by key, anything else whole; a mapping that names its `kind`
replaces the whole source. Paths are seen from the folder where the command runs. Numbers may be written as `15e9`,
`4e-4` or `1_000`.

This page is made from `deconattn/experiment/schema.py`.
"""
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def render() -> str:
    """The page, in Markdown: level by level, a section that stands in several places once, where it comes first."""
    page = [HEAD]
    done: set[type[Section]] = {Settings}
    level: list[tuple[str, type[Section]]] = [("", Settings)]
    while level:
        page += [_section(section, path) for path, section in level]
        deeper = []
        for path, section in level:
            for name, info in section.model_fields.items():
                new = [inner for inner in sections(info.annotation) if inner not in done]
                done.update(new)
                deeper += [(".".join(filter(None, (path, name, _key(info.annotation)))), inner) for inner in new]
        level = deeper
    return "".join(page)


def _section(section: type[Section], path: str) -> str:
    first_line = (section.__doc__ or "").strip().splitlines()[0]
    rows = "".join(_row(name, info) for name, info in section.model_fields.items())
    head = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
    return f"\n## {_title(section, path)}\n\n{first_line}\n\n{head}{rows}"


def _title(section: type[Section], path: str) -> str:
    kind = section.model_fields.get("kind")
    return f"`{path}`" + (f", kind `{get_args(kind.annotation)[0]}`" if kind else "") if path else "The whole config"


def _key(annotation: Any) -> str:
    return {dict: "<name>", list: "<number>"}.get(get_origin(annotation), "")


def _row(name: str, info: FieldInfo) -> str:
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    default = "required" if info.is_required() else f"`{_shown(value)}`"
    if isinstance(value, Section):
        default = "its defaults"
    return f"| `{name}` | {_type(info.annotation)}{_bounds(info.metadata)} | {default} | {info.description} |\n"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    return str(value) if value != "" else '""'


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if annotation in WORDS:
        return WORDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        kind = annotation.model_fields.get("kind")
        return f"`kind: {get_args(kind.annotation)[0]}`" if kind else "a section, below"
    if origin is Annotated:
        return _type(parts[0]) + _bounds(parts[1:])
    if origin is Literal:
        return ", ".join(f"`{name}`" for name in parts)
    if origin is list:
        return f"list of: {_type(parts[0])}"
    if origin is dict:
        return f"by name: {_type(parts[1])}"
    return " or ".join(_type(part) for part in parts)


def _bounds(metadata: Any) -> str:
    words = []
    for entry in metadata:
        for bound in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
            words += [f"{sign} {getattr(bound, name)}" for name, sign in SIGNS.items() if hasattr(bound, name)]
    return f" ({', '.join(words)})" if words else ""


if __name__ == "__main__":
    with atomic_write(sys.argv[1]) as temporary:
        temporary.write_text(render(), encoding="utf-8")
