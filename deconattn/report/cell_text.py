"""How a cell is printed, whatever the format: digits, powers of ten, and the words for what is not a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deconattn.report.names import COSTS, NLU_TASKS, Column
from deconattn.report.results import Cell


@dataclass(frozen=True)
class CellText:
    """A printed cell: (`main` ± `spread`) × 10^`exponent`, `remarks` behind it."""

    main: str
    exponent: int | None = None
    spread: str = ""
    remarks: str = ""


def cell_text(cell: Cell, column: Column) -> CellText:
    """Print a cell of ours or of the paper; a number from 100,000 on is a few digits and a power of ten."""
    if cell.text is not None:
        return CellText(cell.text)
    if cell.value is None:
        return CellText({"missing": "–", "infinite": "∞"}.get(cell.status, "diverged"))
    value = cell.value * column.scale
    digits = 3 if column.metric == "bits_per_byte" else 0 if column.task == COSTS or abs(value) >= 1000 else 1
    main, exponent = number(value, digits, 2 if column.task == COSTS else 1)
    spread = ""
    if cell.stderr is not None:
        error = cell.stderr * column.scale / 10 ** (exponent or 0)
        spread = f"{error:,.{digits if exponent is None else 1}f}"
        # Beside a power of ten an error that rounds to nothing would be read as none.
        spread = "" if exponent is not None and float(spread) == 0 else spread
    remarks = [f"n={cell.seeds}"] if cell.seeds < cell.seeds_planned else []
    remarks += [f"{cell.tasks} tasks"] if cell.tasks not in (None, len(NLU_TASKS)) else []
    remarks += ["†"] if cell.after_divergence else []
    return CellText(main, exponent, spread, ", ".join(remarks))


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
