"""Finished pieces of a result that is not whole yet, such as one task's scores: a job that was stopped goes on from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deconattn.files import read_json, write_json

Keep = Callable[[str, Callable[[], Any]], Any]
"""(name, how to make it) → a piece of a result."""


class Pieces:
    """Keeps each piece in a JSON file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """The piece of this name: read, or else made and written. It is what JSON has kept, to the bit, either way."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)


def make_all(name: str, make: Callable[[], Any]) -> Any:
    """Keeps nothing."""
    return make()
