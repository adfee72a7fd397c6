"""Types of the command line's arguments: each says in one line what was given and what is allowed."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from deconattn.errors import UserError

_WORDS = {
    dict: "a JSON object", list: "a JSON list", str: "text", int: "a whole number", float: "a number",
    type(None): "null",
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`."""
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")


def hours(text: str) -> float:
    """A finite number of hours, 0 or more."""
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; must be a number of hours, 0 or more")
    return value


def positive_int(text: str) -> int:
    """A whole number, 1 or more."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return value


def non_negative_float(text: str) -> float:
    """A finite number, 0 or more."""
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0")
    return value


def _number(text: str) -> float:
    """The finite number that stands there, or one that compares to nothing."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def json_object(**keys: type | tuple[type, ...]) -> Callable[[str], dict[str, Any]]:
    """A JSON object that has these keys, with values of these types; it may have others. `a__b` is `b` of the object `a`."""

    def convert(text: str) -> dict[str, Any]:
        value = _json(text, dict)
        for way, kinds in keys.items():
            *above, key = way.split("__")
            inside = value
            for name in above:
                inside = inside[name]
            allowed = kinds if isinstance(kinds, tuple) else (kinds,)
            words = " or ".join(_WORDS[kind] for kind in allowed)
            dotted = way.replace("__", ".")
            if key not in inside:
                raise argparse.ArgumentTypeError(f"{dotted}: missing; must be {words} (given: {_short(text)})")
            if not isinstance(inside[key], allowed) or isinstance(inside[key], bool):
                said = _short(json.dumps(inside[key], ensure_ascii=False))
                raise argparse.ArgumentTypeError(f"{dotted}: {said} is not allowed; must be {words}")
        return value

    return convert


def json_text(text: str) -> str:
    """The text of a JSON object, as it was given: results are known by it."""
    _json(text, dict)
    return text


def json_names(text: str) -> list[str]:
    """A JSON list of texts."""
    value = _json(text, list)
    if not all(isinstance(item, str) for item in value):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not allowed; must be a JSON list of text")
    return list(value)


def _json(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is not valid JSON ({error.msg}); must be {_WORDS[kind]}"
        ) from None
    if not isinstance(value, kind):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not allowed; must be {_WORDS[kind]}")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
