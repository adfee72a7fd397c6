"""YAML files to plain data in which every value knows its file and line.

Scalars are read by YAML 1.2's core rules, which have fewer traps than YAML 1.1: `4e-4` is a number, `no` is the text
"no"; beyond them, `1_000` is 1000. A key that is given twice is an error, keys are always text, `<<` merges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

Keys = tuple[str | int, ...]
"""Way to a value from the top: keys of mappings, indices of lists counted from 0."""

COMMAND_LINE = 10**9
PLAIN_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE, _FALSE = re.compile(r"(?:true|True|TRUE)\Z"), re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,30}\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|(?:nan|NaN|NAN))\Z")


@dataclass(frozen=True)
class Place:
    """Where something stands: the file (its rank among those read, and its name) and the line, from 1."""

    rank: int
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One line to a user: where, and what is wrong."""

    place: Place
    text: str

    def __str__(self) -> str:
        line = f"{self.place}: {self.text}"
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


@dataclass
class Document:
    """What files say together: the data, the place of every key and item, and what is wrong with the writing.

    `unreadable`: a file is missing or not YAML, so that what the data lacks proves nothing.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unreadable: bool = False

    def place(self, keys: Keys) -> Place:
        """Place of the value at `keys`, or of the nearest thing around it that was written down."""
        while keys not in self.places and keys:
            keys = keys[:-1]
        return self.places.get(keys, Place(COMMAND_LINE, "command line", 0))


def dotted(keys: Iterable[str | int]) -> str:
    """("grid", 0, "variants", 1) → "grid.0.variants.1"."""
    return ".".join(str(key) for key in keys)


def read(paths: Iterable[str | Path], overrides: Mapping[str, Any] | None = None) -> Document:
    """Read files and merge them, later over earlier, `overrides` (from the command line) over all.

    Mappings are merged key by key, anything else is replaced; a mapping that names its `kind` is replaced whole.
    """
    document = Document()
    for rank, path in enumerate(paths):
        _merge(document, _read_file(Path(path), Place(rank, str(path), 1)))
    if overrides:
        given = _given(overrides, (), Place(COMMAND_LINE, "command line", 0))
        document.places.setdefault((), given.places[()])
        _merge(document, given)
    return document


def _read_file(path: Path, top: Place) -> Document:
    document = Document(places={(): top})
    try:
        # the Python loader, not the C one: both word their errors differently
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            document.data = _Reader(document, top).mapping(node, ())
        elif node is not None:
            raise yaml.MarkedYAMLError(problem="settings are `key: value` lines", problem_mark=node.start_mark)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        document.unreadable = True
        document.problems.append(_unreadable(error, top))
    return document


def _unreadable(error: Exception, top: Place) -> Problem:
    whole_file = Place(top.rank, top.file, 0)
    if isinstance(error, FileNotFoundError):
        return Problem(whole_file, f"no such file (looked in {os.getcwd()})")
    if isinstance(error, OSError):
        return Problem(whole_file, f"cannot be read: {error.strerror}")
    if isinstance(error, UnicodeDecodeError):
        return Problem(whole_file, "not a text file in UTF-8")
    if isinstance(error, RecursionError):
        return Problem(whole_file, "nested too deeply")
    mark = getattr(error, "problem_mark", None)
    place = Place(top.rank, top.file, mark.line + 1) if mark else whole_file
    return Problem(place, f"not valid YAML: {getattr(error, 'problem', None) or 'a character that no text has'}")


def _place(node: yaml.Node, top: Place) -> Place:
    return Place(top.rank, top.file, node.start_mark.line + 1)


class _Reader:
    """Turns the nodes of one file into plain data, writing places and problems into its document."""

    def __init__(self, document: Document, top: Place) -> None:
        self.document, self.top = document, top
        self.open: set[int] = set()

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
            self._problem(node, keys, f"the tag {node.tag!r} is not understood here; write a plain value")
        if isinstance(node, yaml.ScalarNode):
            return _plain(node.value) if node.style is None else node.value
        if id(node) in self.open:
            self._problem(node, keys, "an alias that contains itself")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, keys)
            return [self._item(child, (*keys, index)) for index, child in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, keys, "a key must be plain text")
                continue
            key = key_node.value
            if key == "<<" and key_node.style is None:
                continue
            here = (*keys, key)
            if key in lines:
                self._problem(key_node, here, f"given twice (first on line {lines[key]})")
                continue
            lines[key] = key_node.start_mark.line + 1
            self.document.places[here] = _place(key_node, self.top)
            result[key] = self.value(value_node, here)
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == "<<" and key_node.style is None:
                self._merge_key(value_node, keys, result)
        return result

    def _merge_key(self, node: yaml.Node, keys: Keys, result: dict[str, Any]) -> None:
        for source in cast("list[yaml.Node]", node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                self._problem(source, keys, "`<<` merges mappings only")
                continue
            part = _Reader(Document(), self.top)
            part.open = self.open
            merged = part.value(source, keys) or {}
            self.document.problems += part.document.problems
            for key in merged.keys() - result.keys():
                result[key] = merged[key]
                here = (*keys, key)
                self.document.places |= {k: p for k, p in part.document.places.items() if k[: len(here)] == here}

    def _item(self, node: yaml.Node, keys: Keys) -> Any:
        self.document.places[keys] = _place(node, self.top)
        return self.value(node, keys)

    def _problem(self, node: yaml.Node, keys: Keys, text: str) -> None:
        name = f"{dotted(keys)}: " if keys else ""
        self.document.problems.append(Problem(_place(node, self.top), f"{name}{text}"))


def _plain(text: str) -> Any:
    """Value of an unquoted scalar."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    if _INTEGER.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    if special := _SPECIAL.match(text):
        return float(f"{special[1]}inf") if special[2] else float("nan")
    return text


def _given(value: Any, keys: Keys, place: Place) -> Document:
    """Data that did not come from a file, with one place for all of it; keys become text, tuples lists."""
    document = Document(places={keys: place})

    def plain(value: Any, keys: Keys) -> Any:
        document.places[keys] = place
        if isinstance(value, Mapping):
            return {str(key): plain(item, (*keys, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, (*keys, index)) for index, item in enumerate(value)]
        return value

    document.data = plain(value, keys)
    return document


def _merge(base: Document, extra: Document) -> None:
    base.problems += extra.problems
    base.unreadable |= extra.unreadable
    base.places.setdefault((), extra.places[()])
    _merge_mapping(base, base.data, extra, extra.data, ())


def _merge_mapping(base: Document, into: dict[str, Any], extra: Document, new: dict[str, Any], keys: Keys) -> None:
    for key, value in new.items():
        here = (*keys, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict) and "kind" not in value:
            _merge_mapping(base, into[key], extra, value, here)
            continue
        depth = len(here)
        base.places = {k: p for k, p in base.places.items() if k[:depth] != here}
        base.places |= {k: p for k, p in extra.places.items() if k[:depth] == here}
        into[key] = value
