"""Pages of `templates/`, and texts that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from deconattn.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"


def fill(template: str, **values: Any) -> str:
    """A page of `templates/`, every value in it escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def write_text(path: Path, text: str) -> Path:
    """Write a text, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
