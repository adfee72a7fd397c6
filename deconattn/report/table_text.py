"""How a cell is printed, whatever the format: digits, powers of ten, and the words for what is not a number."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from deconattn.report.names import COSTS, NLU_TASKS, Column
from deconattn.report.results import Cell
from deconattn.report.tables import Table, families_of

MISSING_TEXT = "–"
DIVERGED_TEXT = "diverged"
SOURCES: dict[str, str] = {"ours": "ours", "published": "paper"}


@dataclass(frozen=True)
class CellText:
    """A printed cell: (`main` ± `spread`) × 10^`exponent`, `remarks` behind it."""

    main: str
    exponent: int | None = None
    spread: str = ""
    remarks: str = ""

    def plain(self) -> str:
        """The number alone as a spreadsheet reads it, or the word."""
        return self.main if self.exponent is None else f"{self.main}e{self.exponent}"


def decimals(column: Column, value: float) -> int:
    """Digits after the point: accuracies one, bits per byte three, perplexities one below 1000 and none above, costs none."""
    if column.task == COSTS:
        return 0
    if column.metric == "bits_per_byte":
        return 3
    return 0 if abs(value) >= 1000 else 1


def cell_text(cell: Cell, column: Column) -> CellText:
    """Print a cell of ours or of the paper; a number from 100,000 on is two digits and a power of ten."""
    if cell.text is not None:
        return CellText(cell.text)
    if cell.status == "missing":
        return CellText(MISSING_TEXT)
    if cell.status == "infinite":
        return CellText("∞")
    if cell.status == "diverged" or cell.value is None:
        return CellText(DIVERGED_TEXT)
    value = cell.value * column.scale
    main, exponent = number(value, decimals(column, value), 2 if column.task == COSTS else 1)
    spread = ""
    if cell.stderr is not None:
        error = cell.stderr * column.scale / 10 ** (exponent or 0)
        spread = f"{error:,.{decimals(column, value) if exponent is None else 1}f}"
        # Beside a power of ten an error that rounds to nothing would be read as none.
        spread = "" if exponent is not None and float(spread) == 0 else spread
    return CellText(main, exponent, spread, _remarks(cell))


def number(value: float, digits: int, of_mantissa: int = 1) -> tuple[str, int | None]:
    """A value and its power of ten (None below 100,000): 90000 → `90,000`; 2e6 → `2`, 6; 987_654 → `9.9`, 5.

    `of_mantissa` are the digits behind the point before a power of ten.
    """
    if abs(value) < 1e5:
        return f"{value:,.{digits}f}", None
    exponent = math.floor(math.log10(abs(value)))
    mantissa = value / 10**exponent
    if abs(mantissa) >= 10 - 0.5 * 10.0**-of_mantissa:
        mantissa, exponent = mantissa / 10, exponent + 1
    # A value given as one digit and zeros is printed as such; its zeros were not measured.
    digits = 0 if math.isclose(mantissa, round(mantissa), rel_tol=1e-9) else of_mantissa
    return f"{mantissa:.{digits}f}", exponent


def _remarks(cell: Cell) -> str:
    parts = []
    if cell.seeds < cell.seeds_planned:
        parts.append(f"n={cell.seeds}")
    if cell.tasks is not None and cell.tasks != len(NLU_TASKS):
        parts.append(f"{cell.tasks} tasks")
    if cell.after_divergence:
        parts.append("†")
    return ", ".join(parts)


def to_csv(table: Table) -> str:
    """The table as it is read, one line a row and source; accuracies in per cent, `–` where there is nothing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["family", "variant", "layout", "mode", "source", "seeds"]
    for column in table.columns:
        name = f"{column.label} {column.quantity}"
        head += [name, f"{name} ±"]
    writer.writerow(head)
    for family, rows in families_of(table):
        for row in rows:
            for source, cells in (("ours", row.ours), ("published", row.published)):
                if not cells:
                    continue
                label = "baseline" if family is None else family.label
                seeds = max(cell.seeds for cell in cells.values()) if source == "ours" and family else ""
                line = [label, row.variant, row.layout, row.mode, SOURCES[source], str(seeds)]
                for column in table.columns:
                    text = cell_text(cells[column.key], column)
                    line += [text.plain().replace(",", ""), text.spread.replace(",", "")]
                writer.writerow(line)
    return stream.getvalue()
