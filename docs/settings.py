"""The page of all settings, docs/settings.md, and the JSON schema that editors read, config/schema.json.

`python docs/settings.py` writes both; a test holds them to `deconattn/experiment/schema.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from deconattn.experiment.schema import Settings
from deconattn.experiment.section import Section, sections
from deconattn.experiment.training_settings import BlockTraining

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Settings

Every key of a config. Any other key is an error, and so is a value of another type; all wrong values of a config are
shown at once, each with its file and line, and once they are right, so is all that does not fit together. Several files
are merged, later over earlier, and the command line over all: mappings key by key, anything else whole; a mapping that
names its `kind` replaces the whole source. On the command line a value is YAML as in a file: `--config
'training={steps: 6}' side_text=null` changes these two settings and no other. Paths are relative to the folder where
the command runs. Numbers may be written as `15e9`, `4e-4` or `1_000`. Editors that read YAML schemas complete and check
a config whose first line is `# yaml-language-server: $schema=schema.json`, as in those of config/.

A special token that a text spells out is read as text, in training and evaluation. No post-processor of a tokenizer adds
tokens; packing alone ends documents.

This page is made from `deconattn/experiment/schema.py`.

## Sweeps, settings of one variant, your own layouts

Layouts are `uniform` (no layer stays standard), `even`, `odd`, `top`, `middle`, `bottom`, `quarter`, `first`, `last`,
`bilateral`, or a name from `layouts`.

A block of the grid may set any training setting for its runs. A list of values is an axis of the grid: each value is
trained, and several lists give every combination. `overrides` replaces the block's settings for one variant.

```yaml
layouts: {mine: [1, 4, 9]}          # layers that keep standard attention, counted from 1

grid:
  - models: [160m]
    variants: [standard, rndembqk, nonapproximate]
    layouts: [uniform, mine]
    training: {peak_learning_rate: [3e-4, 1e-3]}
    overrides:
      nonapproximate: {training: {peak_learning_rate: 1e-4}}
```

These are 2 runs of `standard` (it has no layouts), 4 of `rndembqk`, 2 of `nonapproximate`. The name of a run tells what
differs from its model's training: `160m-rndembqk-mine-s0-lr0.001-<hash>`. A value equal to the model's adds nothing, so
a finished run with that value belongs to the sweep. Tables and figures show the setting of a sweep that has the lowest
held-out loss, averaged over its seeds, and say so; every run is trained, evaluated and in `runs.parquet`.

## Tasks

`evaluation.tasks` names tasks of lm-evaluation-harness 0.4.13 (any that scores given text: output_type multiple_choice,
loglikelihood or loglikelihood_rolling), the corpus' own `heldout` documents, and tasks of your own, which `definitions`
names with the path of a YAML in lm-eval's form: `definitions: {capitals: mine/capitals.yaml}`. All are zero-shot. With
`tasks: {kind: hub}` items come from the dataset that the definition names, at the commit in `revisions`; with
`kind: folder` from `tasks/<task>.parquet`, with the columns that the definition reads. `limit` counts the items that a
definition's `process_docs` leaves (of the paper's nine tasks, whose functions leave all, rows). A definition's YAML, what
it includes and the Python beside it are part of the evaluation's identity. Tables 1 to 3 show each further task by the
first metric of its definition; the average is over the paper's seven tasks.
"""
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def render() -> str:
    """The page in Markdown, level by level; a section that occurs in several places is shown once, at the first."""
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
    if section is BlockTraining:
        return f"\n## `{path}`\n\n{section.__doc__} Any key of `training`.\n"
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


def json_schema() -> str:
    """The JSON schema of a config."""
    return json.dumps(Settings.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(render(), encoding="utf-8")
    (ROOT / "config" / "schema.json").write_text(json_schema(), encoding="utf-8")
