"""A table on disk: Parquet and CSV for programs, HTML and LaTeX for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from deconattn.report import schema
from deconattn.report.cell_text import CellText, cell_text
from deconattn.report.html import fill, write_text
from deconattn.report.names import BASELINES, Column, Family
from deconattn.report.tables import Row, Table

SOURCES: dict[str, str] = {"ours": "ours", "published": "paper"}
LETTER, PAGE = 4.2, 500.0
"""Width of a letter at \\footnotesize and of a page, in points; a table that is wider is printed as several."""


def write_table(table: Table, out: Path, record: dict[str, Any]) -> list[Path]:
    """Write `<exhibit>.{parquet,csv,tex,html}`; returns the paths."""
    stem = out / table.exhibit
    html = fill("table.html", table=table, lines=list(lines_of(table)), sources=SOURCES, record=record)
    return [
        schema.write_table(table.tidy(), schema.CELLS, stem.with_suffix(".parquet")),
        write_text(stem.with_suffix(".csv"), to_csv(table)),
        write_text(stem.with_suffix(".tex"), to_latex(table)),
        write_text(stem.with_suffix(".html"), html),
    ]


@dataclass(frozen=True)
class Line:
    """One printed line: a row, its name, its cells as text, the row above of the same name, and a family that begins."""

    row: Row
    name: str
    texts: list[CellText]
    above: Row | None
    heading: Family | None


def lines_of(table: Table) -> Iterator[Line]:
    """The lines of a table; families have headings, except where variants of several share lines."""
    above: Row | None = None
    for row in _joined(table.rows) if table.joined else table.rows:
        heading = None if table.joined or (above and above.family == row.family) else row.family
        texts = [cell_text(row.cells[column.key], column) for column in table.columns]
        same = above if above and above.variant == row.variant else None
        yield Line(row, BASELINES.get(row.variant, row.variant), texts, same, heading)
        above = row


def _joined(rows: list[Row]) -> Iterator[Row]:
    """The rows with one set of lines for all variants whose rows hold the same; their names are joined by commas."""
    alike: dict[str, list[list[Row]]] = {}
    for _, group in groupby(rows, key=lambda row: row.variant):
        own = list(group)
        alike.setdefault(str([replace(row, family=None, variant="") for row in own]), []).append(own)
    for groups in alike.values():
        names = ", ".join(own[0].variant for own in groups)
        yield from (replace(row, variant=names) for row in groups[0])


def to_csv(table: Table) -> str:
    """The table for spreadsheets, accuracies in per cent, `–` where a value is missing."""
    out = []
    for row in table.rows:
        line = {
            "family": row.family.label if row.family else "baseline", "variant": row.variant, "layout": row.layout,
            "mode": row.mode, "source": SOURCES[row.source],
            "seeds": max((cell.seeds for cell in row.cells.values()), default=0) or "",
        }  # fmt: skip
        for column in table.columns:
            text, head = cell_text(row.cells[column.key], column), f"{column.label} {column.quantity}"
            power = "" if text.exponent is None else f"e{text.exponent}"
            line |= {head: text.main.replace(",", "") + power, f"{head} ±": text.spread.replace(",", "")}
        out.append(line)
    return pd.DataFrame(out).to_csv(index=False, lineterminator="\n")


# ---- LaTeX ----------------------------------------------------------------------------------------------------------------

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---", "∞": r"$\infty$", "†": r"$\dagger$",
    "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$", "≥": r"$\geq$", "…": r"\ldots{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "²": "$^2$", "≤": r"$\leq$", "φ": r"$\varphi$", "Σ": r"$\Sigma$", "·": r"$\cdot$",
    "Δ": r"$\Delta$", "−": "$-$", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Text in which every character that means something to LaTeX stands for itself."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda found: _SPECIAL[found[0]], text)


def to_latex(table: Table) -> str:
    """The table as `table*` floats, of a page's width each at 8 points; the paper's lines are in italics."""
    said = [table.explanation, *(f"{name}: {words}" for name, words in table.lead.items())]
    sources = (
        [[row for row in table.rows if row.source == source] for source in SOURCES] if table.apart else [table.rows]
    )
    floats = [
        (part, columns) for rows in sources if rows for part in [replace(table, rows=rows)] for columns in _parts(part)
    ]
    letters = "abcdefgh" if len(floats) > 1 else ""
    last = len(floats) - 1
    printed = [
        _float(part, columns, letters[at : at + 1], notes=at == last) for at, (part, columns) in enumerate(floats)
    ]
    head = "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}"
    return "\n".join([head, *(f"% {latex_escape(words)}" for words in said), *printed])


def _units(columns: list[Column]) -> list[str]:
    return [column.quantity.replace("accuracy, %", "acc %").replace("perplexity", "ppl") for column in columns]


def _parts(table: Table) -> list[slice]:
    """Runs of columns, each of which fits on a page beside the names of its rows."""
    lines, ends = list(lines_of(table)), [0]
    names = [max(map(len, words)) for words in ([line.name for line in lines], [line.row.label for line in lines])]
    room = left = PAGE / LETTER - sum(names) - 10
    for number, (column, unit) in enumerate(zip(table.columns, _units(table.columns), strict=True)):
        texts = [line.texts[number] for line in lines]
        cells = [len(f"{text.main}{text.spread or ''}{text.remarks or ''}") + 3 * bool(text.spread) for text in texts]
        powers = [4 * (text.exponent is not None) for text in texts]
        width = 2 + max(len(column.label), len(unit), *map(sum, zip(cells, powers, strict=True)))
        if width > left and number > ends[-1]:
            ends.append(number)
            left = room
        left -= width
    return [slice(*pair) for pair in pairwise([*ends, max(len(table.columns), 1)])]


def _float(table: Table, part: slice, letter: str, notes: bool) -> str:
    columns = table.columns[part]
    body = [
        ["", "", "", *(latex_escape(column.label) for column in columns)],
        ["", "", "", *map(latex_escape, _units(columns))],
    ]
    for number, line in enumerate(lines_of(table)):
        if line.heading:
            rule = "\\midrule\n" if number else ""
            body.append([rule + _italic(latex_escape(line.heading.label)), *[""] * (len(columns) + 2)])
        style = _italic if line.row.source == "published" else str
        name = "" if line.above else style(latex_escape(line.name))
        label = "" if line.above and line.above.label == line.row.label else latex_escape(line.row.label)
        cells = [_latex_cell(text, style(latex_escape(text.main))) for text in line.texts[part]]
        body.append([name, label, style(SOURCES[line.row.source]), *cells])
    lines = [f"{' & '.join(cells)} \\\\" for cells in body]
    said = ["The paper's values are in italics."] if table.has_published else []
    said += [*table.notes, *(f"Gap: {gap}." for gap in table.gaps)] if notes else ["Notes stand beneath the last part."]
    return "\n".join(
        [
            "\\begin{table*}[tp]",
            "\\centering",
            f"\\caption{{{latex_escape(f'{table.heading}, part {letter}.' if letter else f'{table.heading}.')}}}",
            f"\\label{{tab:{table.exhibit}{letter}}}",
            "\\footnotesize\\setlength{\\tabcolsep}{2.5pt}",
            f"\\begin{{tabular}}{{@{{}}lll{'r' * len(columns)}@{{}}}}",
            "\\toprule",
            *lines[:2],
            "\\midrule",
            *lines[2:],
            "\\bottomrule",
            "\\end{tabular}",
            f"\\par\\smallskip\\raggedright {latex_escape(' '.join(said))}",
            "\\end{table*}\n",
        ]
    )


def _italic(text: str) -> str:
    return f"\\textit{{{text}}}"


def _latex_cell(text: CellText, main: str) -> str:
    spread = f"$\\,\\pm\\,${latex_escape(text.spread)}" if text.spread else ""
    power = "" if text.exponent is None else f"${{\\times}}10^{{{text.exponent}}}$"
    remarks = f"\\,({latex_escape(text.remarks)})" if text.remarks else ""
    return f"{main}{spread}{power}{remarks}"
