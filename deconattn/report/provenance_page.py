"""One page of where every table and figure of a report comes from; the report files it beside them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from deconattn.files import atomic_write, read_json, write_json
from deconattn.report.catalogue import TITLE

_STYLE = """
body { font: 14px/1.5 sans-serif; margin: 1.5em; max-width: 70em; } h2 { font-size: 1.1em; margin: 1.6em 0 .3em; }
dl { display: grid; grid-template-columns: 9em 1fr; gap: .15em 1em; margin: 0; } dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .92em; } .gap { color: #8a3b00; }
"""


def write_page(records: Sequence[Path], report: Path, key: str) -> None:
    """Write provenance.html and provenance.json into `report` from the JSON files beside its tables and figures.

    Raises:
        UserError: a record that is missing or broken.
    """
    found = {path.stem: read_json(path) for path in records}
    body = "".join(_section(name, record) for name, record in found.items())
    with atomic_write(report / "provenance.html") as temporary:
        temporary.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Where it comes from</title>'
            f"<style>{_STYLE}</style><h1>Where it comes from</h1>{body}</html>\n",
            encoding="utf-8",
        )
    write_json(report / "provenance.json", {"key": key, "exhibits": found})


def _section(name: str, record: dict[str, Any]) -> str:
    commit = record["commit"] or "not in a repository"
    if record["uncommitted_changes"]:
        commit += " with uncommitted changes"
    rows = [
        ("runs", _codes(record["runs"])),
        ("gaps", f'<span class="gap">{"<br>".join(map(escape, record["gaps"]))}</span>' if record["gaps"] else "none"),
        ("tokens", _codes(f"{name}: {sha or 'no manifest'}" for name, sha in record["data"].items())),
        ("tables", _codes(f"{name}: {sha}" for name, sha in record["tables"].items())),
        ("code of the runs", _codes(record["code"])),
        ("commit", f"<code>{escape(commit)}</code>"),
        ("their packages", "<br>".join(map(escape, record["packages"])) or "none"),
        ("drawn with", escape(", ".join(f"{package} {number}" for package, number in record["versions"].items()))),
    ]
    cells = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in rows)
    return f"<h2>{escape(TITLE.get(name, name))}</h2><dl>{cells}</dl>"


def _codes(values: Any) -> str:
    return "<br>".join(f"<code>{escape(str(value))}</code>" for value in values) or "none"
