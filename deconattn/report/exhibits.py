"""The one way to draw a table or figure.

An exhibit is a module of this folder named `figure<n>.py`, `figure_<word>.py` or `table<n>.py`. It has `OPTIONS`, what
it can be told, and `draw(results, options)`, which gives a `Drawing` or a `Table`; one that reads tables which not
every exhibit reads names them in `TABLES`, for its provenance, and one that reads nothing of trained runs names what
it reads instead of `Results` in `READER`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deconattn.errors import UserError
from deconattn.nearest import not_one_of
from deconattn.report.results import Results

EXHIBITS: dict[str, str] = {
    path.stem: f"deconattn.report.{path.stem}"
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if re.fullmatch(r"(figure|table)\d+|figure_[a-z]+", path.stem)
}


def draw(
    exhibit: str,
    tables_folder: Path,
    out_folder: Path,
    options: dict[str, Any],
    made: Mapping[str, Any] = MappingProxyType({}),
) -> list[Path]:
    """Draw an exhibit from the collected tables; returns the files written.

    A figure is written as `<exhibit>.{svg,pdf,png,json}`, a table as `<exhibit>.{parquet,csv,tex,html,json}`, into
    `out_folder`, the JSON last; `made` is written into it and says what the exhibit was drawn from.
    Raises `UserError` for an unknown exhibit, option or model and for tables that are not there.
    """
    module = _module(exhibit)
    _check_options(exhibit, module.OPTIONS, options)
    results = getattr(module, "READER", Results)(tables_folder)
    if exhibit.startswith("table"):
        from deconattn.report.write_table import write_table

        return write_table(module.draw(results, options), results, Path(out_folder), options, made)
    from deconattn.report.write_figure import write_figure

    return write_figure(exhibit, module, results, Path(out_folder), options, made)


def options_of(exhibit: str) -> dict[str, str]:
    """What an exhibit can be told, each with a line of explanation."""
    return dict(_module(exhibit).OPTIONS)


def outputs_of(exhibit: str) -> tuple[str, ...]:
    """The file names that `draw` writes for an exhibit, without importing anything that draws."""
    kinds = ("parquet", "csv", "tex", "html", "json") if exhibit.startswith("table") else ("svg", "pdf", "png", "json")
    return tuple(f"{exhibit}.{kind}" for kind in kinds)


def _module(exhibit: str) -> Any:
    if exhibit not in EXHIBITS:
        raise UserError(not_one_of(exhibit, "exhibit that can be drawn", EXHIBITS))
    return importlib.import_module(EXHIBITS[exhibit])


def _check_options(exhibit: str, allowed: dict[str, str], options: dict[str, Any]) -> None:
    for name in options:
        if name not in allowed:
            raise UserError(f"{exhibit}: {not_one_of(name, 'option', allowed)}")
    for name in ("model", "models"):
        if name in allowed and not options.get(name):
            raise UserError(f"{exhibit}: option {name!r} is missing ({allowed[name]})")
