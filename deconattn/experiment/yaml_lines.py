"""YAML files to plain data in which every value has its file and line.

Scalars follow YAML 1.2's core rules, which have fewer traps than YAML 1.1: `4e-4` is a number, `no` is the text "no". Beyond
them, `1_000` is 1000. A key that is given twice is an error, keys are always text, `<<` merges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deconattn.errors import UserError
from deconattn.experiment.section import Keys

PLAIN_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class Place(NamedTuple):
    """The rank of a file among those read, the line in it from 1 (0: the whole of it), and its name."""

    rank: int
    line: int
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Place(10**9, 0, "command line")


class Problem(NamedTuple):
    """One line to a user: where, and what is wrong."""

    place: Place
    text: str

    def __str__(self) -> str:
        line = f"{self.place}: {self.text}"
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class ConfigError(UserError):
    """A config that cannot be run. `problems` holds one line each, in order of file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = [str(problem) for problem in sorted(problems, key=lambda problem: problem.place)]
        super().__init__("\n".join(self.problems))


class PlacedDict(dict[str, Any]):
    """A mapping that knows where each key stands."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}


class PlacedList(list[Any]):
    """A list that knows where each item stands."""

    def __init__(self, items: Iterable[Any], places: Iterable[Place]) -> None:
        super().__init__(items)
        self.places = dict(enumerate(places))


class Document:
    """Files and command line as one: its data, where it begins, and the keys that a file gives twice."""

    def __init__(self) -> None:
        self.data, self.start, self.problems = PlacedDict(), COMMAND_LINE, list[Problem]()

    def place(self, keys: Keys) -> Place:
        """Place of the value at `keys`, or of the nearest thing around it that is written down."""
        found, inside = self.start, self.data
        for key in keys:
            places: dict[Any, Place] = getattr(inside, "places", {})
            if key not in places:
                break
            found, inside = places[key], inside[key]  # type: ignore[index]
        return found


def dotted(keys: Keys, text: str = "") -> str:
    """("grid", 0, "variants", 1), "text" → "grid.0.variants.1: text"; the text alone at the top."""
    return ": ".join(filter(None, (".".join(map(str, keys)), text)))


def read(paths: Iterable[str | Path], overrides: Mapping[str, Any] | Sequence[str] | None = None) -> Document:
    """Read and merge files and overrides, see `load_settings`.

    Raises:
        ConfigError: a file that is missing or is not YAML.
    """
    document = Document()
    for rank, path in enumerate(paths):
        document.start = min(document.start, Place(rank, 1, str(path)))
        _merge(document.data, _read_file(Path(path), Place(rank, 0, str(path)), document.problems))
    typed = (
        [overrides] if isinstance(overrides, Mapping) else [_typed(each, document.problems) for each in overrides or ()]
    )
    for each in typed:
        _merge(document.data, each)
    return document


def _merge(into: PlacedDict, new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and "kind" not in value:
            _merge(into[key], value)
        else:
            into[key] = value
            into.places[key] = new.places[key] if isinstance(new, PlacedDict) else COMMAND_LINE


def data_of(text: str) -> dict[str, Any]:
    """The data of a YAML mapping."""
    return _parse(text, Place(0, 0, ""), [])


def _read_file(path: Path, whole: Place, problems: list[Problem]) -> PlacedDict:
    place = whole
    try:
        return _parse(path.read_text(encoding="utf-8"), whole, problems)
    except FileNotFoundError:
        text = f"no such file (looked in {os.getcwd()})"
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        text = "not a text file in UTF-8"
    except RecursionError:
        text = "nested too deeply"
    except yaml.YAMLError as error:
        text = f"not valid YAML: {getattr(error, 'problem', None) or 'a character that is not text'}"
        if mark := getattr(error, "problem_mark", None):
            place = whole._replace(line=mark.line + 1)
    raise ConfigError([Problem(place, text)])


def _parse(text: str, whole: Place, problems: list[Problem]) -> PlacedDict:
    # the Python loader, not the C one: both word their errors differently
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise yaml.MarkedYAMLError(problem="settings are `key: value` lines", problem_mark=node.start_mark)
    return _mapping(node, (), whole, problems) if node else PlacedDict()


def _typed(entry: str, problems: list[Problem]) -> dict[str, Any]:
    """One `key=value` of the command line. What is not YAML is text, and None is null: so Snakemake reads it."""
    key, _, text = entry.partition("=")
    try:
        node = yaml.compose("null" if text == "None" else text, Loader=yaml.SafeLoader)
        return {key: _value(node, (key,), COMMAND_LINE, problems) if node else None}
    except yaml.YAMLError:
        return {key: text}


def _value(node: yaml.Node, keys: Keys, whole: Place, problems: list[Problem]) -> Any:
    """Plain data of a node at `keys`; notes keys that are given twice."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
        problem = f"the tag {node.tag!r} is not understood here; write a plain value"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, whole, problems)
    if isinstance(node, yaml.SequenceNode):
        items = [_value(child, (*keys, index), whole, problems) for index, child in enumerate(node.value)]
        return PlacedList(items, [_place(child, whole) for child in node.value])
    return _scalar(node.value) if getattr(node, "style", None) is None else node.value


def _mapping(node: yaml.MappingNode, keys: Keys, whole: Place, problems: list[Problem]) -> PlacedDict:
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
    yaml.constructor.SafeConstructor().flatten_mapping(node)  # puts what `<<` names first
    found, lines = PlacedDict(), dict[str, int]()
    for key_node, child in node.value:
        key, place = key_node.value, _place(key_node, whole)
        if node.start_mark.index <= key_node.start_mark.index < node.end_mark.index:  # not merged from elsewhere
            if key in lines:
                problems.append(Problem(place, dotted((*keys, key), f"given twice (first on line {lines[key]})")))
                continue
            lines[key] = key_node.start_mark.line + 1
        found.places[key] = place
        found[key] = _value(child, (*keys, key), whole, problems)
    return found


def _place(node: yaml.Node, whole: Place) -> Place:
    return whole if whole == COMMAND_LINE else whole._replace(line=node.start_mark.line + 1)


def _scalar(text: str) -> Any:
    """Value of an unquoted scalar."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for number in (int, float) if text[0] in "+-.0123456789" else ():
        try:
            return number(text)
        except ValueError:
            pass
    return text
