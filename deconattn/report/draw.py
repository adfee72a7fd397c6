"""The one way to draw a table or figure: from a folder of collected tables into a folder."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deconattn.exhibit import FIGURE_KINDS, Exhibit
from deconattn.exhibits import find
from deconattn.files import sha256_file, write_json
from deconattn.report.provenance import provenance
from deconattn.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Drawing:
    """A figure ready to be saved, the ids of the runs that are in it, and what is missing from it."""

    figure: Figure
    runs: Sequence[str]
    gaps: Sequence[str]


def draw(name: str, tables: Path, out: Path, options: dict[str, Any]) -> list[Path]:
    """Draw an exhibit from the collected tables of a folder into `out`; returns the files written, the JSON last.

    Raises:
        UserError: an unknown exhibit or model, or tables that are not there.
    """
    exhibit = find(name)
    options = exhibit.defaults | options
    paths, record = (_table if exhibit.is_table else _figure)(exhibit, tables, out, options)
    write_json(out / f"{name}.json", {**record, "files": {path.name: sha256_file(path) for path in paths}})
    return [*paths, out / f"{name}.json"]


def make(exhibit: Exhibit, tables: Path, options: dict[str, Any]) -> Any:
    """The `Drawing` of an exhibit, within `style.styled()`; or its `Table`, or another that can `write` itself."""
    results, options = Results(tables), exhibit.defaults | options
    if "runs" in exhibit.reads:
        results.check_models(options.get("models") or [options["model"]])
    return pkgutil.resolve_name(exhibit.draws)(results, options)


def _figure(exhibit: Exhibit, tables: Path, out: Path, options: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    from deconattn.report import style

    with style.styled():
        drawing: Drawing = make(exhibit, tables, options)
        paths = style.save(drawing.figure, out, exhibit.name, FIGURE_KINDS[:-1])
    return paths, provenance(exhibit, tables, drawing.runs, drawing.gaps, options)


def _table(exhibit: Exhibit, tables: Path, out: Path, options: dict[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    from deconattn.report.print_table import write_table
    from deconattn.report.tables import Table

    table = make(exhibit, tables, options)
    record = provenance(exhibit, tables, table.runs, table.gaps, options)
    return write_table(table, out, record) if isinstance(table, Table) else table.write(out, record), record
