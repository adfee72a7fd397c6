"""A table on disk: Parquet, CSV, LaTeX, HTML, and the JSON of what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from deconattn.files import atomic_write, sha256_file, write_json
from deconattn.report import schema
from deconattn.report.cost_results import CostResults
from deconattn.report.provenance import provenance
from deconattn.report.results import Results
from deconattn.report.table_html import to_html
from deconattn.report.table_latex import to_latex
from deconattn.report.table_text import to_csv
from deconattn.report.tables import Table


def write_table(
    table: Table, results: Results | CostResults, out: Path, options: dict[str, Any], made: Mapping[str, Any]
) -> list[Path]:
    """Write `<exhibit>.{parquet,csv,tex,html,json}`, the JSON last; returns the paths."""
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
    origin = out / f"{table.exhibit}.json"
    write_json(origin, {**record, **made, "files": {path.name: sha256_file(path) for path in paths}})
    return [*paths, origin]


def _origin(record: dict[str, Any]) -> str:
    """The provenance as a folded paragraph of HTML."""
    commit = record["commit"] or "not in a repository"
    if record["uncommitted_changes"]:
        commit += " with uncommitted changes"
    data = ", ".join(f"{name} ({sha or 'no manifest'})" for name, sha in record["data"].items()) or "unknown"
    versions = "Drawn with " + ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    if record["packages"]:
        versions = f"Runs: {'; or '.join(record['packages'])}. {versions}"
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
