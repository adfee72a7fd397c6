"""The one way to draw a table or figure.

An exhibit is a module of this folder named `figure<n>.py`, `figure_<word>.py` or `table<n>.py`. It has `OPTIONS`, what
it can be told, and `draw(results, options)`, which gives a `Drawing` or a `Table`; one that reads tables which not
every exhibit reads names them in `TABLES`, for its provenance, and one that reads nothing of trained runs names what
it reads instead of `Results` in `READER`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.files import atomic_write, write_json
from deconattn.nearest import not_one_of
from deconattn.report import schema
from deconattn.report.drawing import Drawing
from deconattn.report.provenance import provenance
from deconattn.report.results import Results
from deconattn.report.tables import Table

EXHIBITS: dict[str, str] = {
    path.stem: f"deconattn.report.{path.stem}"
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if re.fullmatch(r"(figure|table)\d+|figure_[a-z]+", path.stem)
}
TABLE_FORMATS = ("parquet", "csv", "tex", "html")


def draw(exhibit: str, tables_folder: Path, out_folder: Path, options: dict[str, Any]) -> list[Path]:
    """Draw an exhibit from the collected tables; returns the files written.

    A figure is written as `<exhibit>.{svg,pdf,png,json}`, a table as `<exhibit>.{parquet,csv,tex,html}`, into
    `out_folder`. Raises `UserError` for an unknown exhibit, option or model and for tables that are not there.
    """
    module = _module(exhibit)
    _check_options(exhibit, module.OPTIONS, options)
    results = getattr(module, "READER", Results)(tables_folder)
    if exhibit.startswith("table"):
        return _write_table(module.draw(results, options), results, Path(out_folder), options)
    return _write_figure(exhibit, module, results, Path(out_folder), options)


def options_of(exhibit: str) -> dict[str, str]:
    """What an exhibit can be told, each with a line of explanation."""
    return dict(_module(exhibit).OPTIONS)


def outputs_of(exhibit: str) -> tuple[str, ...]:
    """The file names that `draw` writes for an exhibit, without importing anything that draws."""
    kinds = TABLE_FORMATS if exhibit.startswith("table") else ("svg", "pdf", "png", "json")
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


def _write_figure(exhibit: str, module: Any, results: Results, out: Path, options: dict[str, Any]) -> list[Path]:
    from deconattn.report import style

    with style.styled():
        drawing: Drawing = module.draw(results, options)
        paths = style.save(drawing.figure, out, exhibit)
    record = out / f"{exhibit}.json"
    more = getattr(module, "TABLES", ())
    write_json(record, provenance(results, exhibit, drawing.runs, drawing.gaps, options, more))
    return [*paths, record]


def _write_table(table: Table, results: Results, out: Path, options: dict[str, Any]) -> list[Path]:
    from deconattn.report.table_html import to_html
    from deconattn.report.table_latex import to_latex
    from deconattn.report.table_text import to_csv

    record = provenance(results, table.exhibit, table.runs, table.gaps, options)
    writers: dict[str, Callable[[], str]] = {
        "csv": lambda: to_csv(table),
        "tex": lambda: to_latex(table),
        "html": lambda: to_html(table, _origin(record)),
    }
    paths = [schema.write_table(table.tidy(), schema.CELLS, out / f"{table.exhibit}.parquet")]
    for kind, write in writers.items():
        with atomic_write(out / f"{table.exhibit}.{kind}") as temporary:
            temporary.write_text(write(), encoding="utf-8")
        paths.append(out / f"{table.exhibit}.{kind}")
    return paths


def _origin(record: dict[str, Any]) -> str:
    """The provenance as a folded paragraph of HTML."""
    commit = record["commit"] or "not in a repository"
    if record["uncommitted_changes"]:
        commit += " with uncommitted changes"
    data = ", ".join(f"{name} ({sha or 'no manifest'})" for name, sha in record["data"].items()) or "unknown"
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    runs = ", ".join(f"<code>{escape(run)}</code>" for run in record["runs"])
    if not record["runs"]:
        files = ", ".join(f"{escape(name)} (sha256 <code>{sha}</code>)" for name, sha in record["tables"].items())
        return (
            f"<details><summary>Where this comes from</summary><p>Tables: {files}</p>"
            f"<p>Commit: <code>{escape(commit)}</code>. {escape(versions)}.</p></details>"
        )
    return (
        f"<details><summary>Where this comes from: {len(record['runs'])} runs</summary><p>Runs: {runs}</p>"
        f"<p>Tokens (sha256 of the manifest): <code>{escape(data)}</code></p>"
        f"<p>Commit: <code>{escape(commit)}</code>. {escape(versions)}.</p></details>"
    )
