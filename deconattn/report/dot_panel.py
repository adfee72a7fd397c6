"""One panel of Figures 3 and 4: its axis, and a row of dots with their errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deconattn.report import style
from deconattn.report.names import Column
from deconattn.report.results import MISSING, Cell

WIDEST = 40.0  # times the lowest perplexity: as far as a panel reaches; beyond it stand an arrow and the value
GUESS_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.7, "linestyle": (0, (6, 2))}

Cells = dict[tuple[str, str], Cell]
"""Cells of one column by (variant, layout)."""


def limits_of(column: Column, cells: Iterable[Cell]) -> tuple[float, float] | None:
    """The range of a column over these cells and their errors, in printed units; None if there is no value."""
    known = [(column.scale * cell.value, column.scale * (cell.stderr or 0)) for cell in cells if cell.value is not None]
    if not known:
        return None
    # An error as large as its value has no place on a logarithmic axis.
    low = min(max(value - error, value / 2) for value, error in known)
    high = max(value + error for value, error in known)
    if not column.is_perplexity:
        room = 0.06 * (high - low) or 0.05 * high or 1.0
        return low - room, high + room
    high = min(high, low * WIDEST)
    room = 1.02 * (high / low) ** 0.08
    return low / room, high * room


def set_panel(
    axes: Axes,
    column: Column,
    cells: Cells,
    limits: tuple[float, float] | None,
    reference: Cell,
    chance: Cell = MISSING,
) -> None:
    """The axis of a column, and lines at the standard model and at random guessing."""
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if limits is None:
        axes.set_xticks([])
    elif column.is_perplexity:
        axes.set(xscale="log", xlim=limits)
        style.set_ticks(axes.xaxis, style.log_ticks(*limits))
    else:
        axes.set_xlim(limits)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    for cell, look in ((chance, GUESS_LINE), (reference, style.STANDARD_LINE)):
        if cell.value is not None:
            axes.axvline(cell.value * column.scale, **look)
    if all(cell.status == "missing" for cell in cells.values()):
        style.empty(axes, "not evaluated")


def draw_row(axes: Axes, column: Column, cells: Cells, places: Iterable[float]) -> list[float]:
    """Dots with whiskers; what is no number is a word, and what is beyond the panel an arrow with its number.

    Returns the values in printed units.
    """
    edge: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
    words: dict[str, Any] = {"va": "center", "fontsize": style.SMALL, **edge}
    values: list[float] = []
    failed = []
    for ((variant, layout), cell), place in zip(cells.items(), places, strict=True):
        look = style.dot(variant, layout != "uniform")
        if cell.value is None:
            failed += [(cell.status, place, look)] if cell.status != "missing" else []
            continue
        value, error = column.scale * cell.value, column.scale * (cell.stderr or 0.0)
        values.append(value)
        if value > axes.get_xlim()[1]:
            number = f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"
            axes.text(0.995, place - 0.28, f"{number} →", ha="right", **words)
            axes.plot(0.98, place, clip_on=False, **edge, **look)
        else:
            axes.plot([value - error, value + error], [place] * 2, color=look["color"], linewidth=0.9, zorder=2)
            axes.plot(value, place, zorder=3, **look)
    # On the side of the panel where the others of the row are not.
    right = not values or axes.transLimits.transform(axes.transScale.transform((values[0], 1)))[0] < 0.5
    for _, place, look in failed:
        axes.plot(0.97 if right else 0.03, place, clip_on=False, **edge, **look)
    if failed:
        text = ", ".join(dict.fromkeys(status for status, *_ in failed))
        axes.text(0.92 if right else 0.08, float(np.mean([place for _, place, _ in failed])), text, color=style.GREY,
                  ha="right" if right else "left", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                  **words)  # fmt: skip
    return values
