"""Deliberate faults: for each test of the suite, edits of the package that it must catch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any

import pytest


@dataclass(frozen=True)
class Fault:
    """With `new` in the place of the text `old` in `function`, `what` is wrong; the test fails for `case`, as `says` matches."""

    what: str
    function: Callable[..., Any]
    old: str
    new: str
    case: dict[str, Any]
    says: str
    error: type[Exception] = AssertionError

    def edit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the function the code of its edited text, so that whoever has imported it runs that too."""
        function: Any = inspect.unwrap(self.function)
        text = dedent(inspect.getsource(function))
        assert text.count(self.old) == 1, f"{self.old!r} is not once in {function.__qualname__}"
        text = (
            "def edited" + text.replace(self.old, self.new).partition(f"def {function.__name__}")[2]
        )  # without decorators
        made: dict[str, Any] = {}
        # Inside a function with __class__, so that the code may call super() as it did.
        exec(f"def within(__class__):\n{indent(text, '    ')}\n    return edited", function.__globals__, made)
        monkeypatch.setattr(function, "__code__", made["within"](None).__code__)


def kind(variant: str, layout: str = "uniform", heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "layout": layout, "heads": heads, **more}


Faults = dict[Callable[..., None], list[Fault]]
