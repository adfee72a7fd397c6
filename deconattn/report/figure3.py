"""Figure 3: which layers keep standard attention: nine layouts of some variants, standard as a dotted line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from deconattn.layouts import LAYOUTS, is_standard
from deconattn.report import style
from deconattn.report.drawing import Drawing
from deconattn.report.gaps import outside_grid, run_gaps
from deconattn.report.names import AVERAGE, HELDOUT, WIKITEXT, Column, count_label, in_order, layout_label
from deconattn.report.palette import colour
from deconattn.report.results import Results

OPTIONS: dict[str, str] = {
    "model": "the model whose layouts are drawn",
    "variants": "the variants to draw (default: those of the grid that have more layouts than uniform and even)",
}
NINE = tuple(layout for layout in LAYOUTS if layout != "uniform")
_ROW = 0.215


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 3 for `options["model"]`; a missing run is left out and named at the foot."""
    model = options["model"]
    results.check_models([model])
    variants = in_order(options.get("variants") or _with_layouts(results, model))
    text = WIKITEXT if results.has(model, WIKITEXT) else HELDOUT
    columns = [column for column in (text, AVERAGE) if results.has(model, column)] or [text]
    gaps = run_gaps(results, model, ["standard", *variants], NINE)
    absent = outside_grid(results, model, variants, NINE)
    gaps += [absent] if absent else []
    figure = _figure(results, model, variants, columns, gaps)
    runs = results.runs
    wanted = runs["variant"].isin(variants) & runs["layout"].isin(NINE) | (runs["variant"] == "standard")
    shown = runs[(runs["model"] == model) & wanted & (runs["status"] != "missing")]
    return Drawing(figure, shown["run"].tolist(), gaps)


def _with_layouts(results: Results, model: str) -> list[str]:
    runs = results.runs[(results.runs["model"] == model) & (results.runs["variant"] != "standard")]
    more = runs.loc[~runs["layout"].isin(["uniform", "even"]), "variant"]
    return more.unique().tolist() or runs["variant"].unique().tolist()


def _figure(results: Results, model: str, variants: Sequence[str], columns: list[Column], gaps: list[str]) -> Figure:
    width = style.SINGLE_COLUMN
    spread = _offsets(variants)
    panel = max(_ROW, 0.1 * len(variants)) * len(NINE)
    foot = [
        "Beside a name: the layers, first one left; dark ones keep standard attention. "
        + ("± standard deviation over seeds." if results.seeds(model) > 1 else "Whiskers: ± standard error."),
        style.gap_line(gaps),
    ]
    below = style.footer(Figure(figsize=(width, 4)), foot, width)
    rows = 1 if len(variants) < 4 else 2
    head = 0.36 + 0.17 * rows
    height = head + panel + 0.5 + below
    figure = Figure(figsize=(width, height))
    style.footer(figure, foot, width)
    parameters = results.parameters(model)
    size = "" if parameters is None else f", {count_label(parameters)} parameters"
    figure.text(0.05 / width, 1 - 0.05 / height, f"{model}{size}", fontweight="bold", va="top")
    handles = [Line2D([], [], label=variant, **style.dot(variant, True)) for variant in variants]
    handles.append(Line2D([], [], color=colour("standard"), linewidth=0.9, linestyle=":", label="standard"))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1 - 0.19 / height), ncols=4 if rows == 1 else 3,
                  handletextpad=0.3, columnspacing=1.1, borderaxespad=0.2, handlelength=1.6)  # fmt: skip
    left, gap = 1.5, 0.16
    wide = (width - left - 0.1 - (len(columns) - 1) * gap) / len(columns)
    for number, column in enumerate(columns):
        box = ((left + number * (wide + gap)) / width, 1 - (head + panel) / height, wide / width, panel / height)
        axes = figure.add_axes(box)
        _panel(axes, results, model, variants, column, spread)
        if number == 0:
            _pictures(axes, wide, results.layers(model) or 12)
    return figure


def _offsets(variants: Sequence[str]) -> dict[str, float]:
    """How far above or below a layout's line each variant is drawn, in lines."""
    if len(variants) == 1:
        return {variants[0]: 0.0}
    step = 0.44 / (len(variants) - 1) if len(variants) > 2 else 0.26
    return {variant: (k - (len(variants) - 1) / 2) * step for k, variant in enumerate(variants)}


def _panel(
    axes: Axes, results: Results, model: str, variants: Sequence[str], column: Column, offsets: dict[str, float]
) -> None:
    style.quiet(axes, "x")
    axes.set_ylim(len(NINE) - 0.45, -0.55)
    axes.set_yticks(range(len(NINE)), [""] * len(NINE))
    axes.spines["left"].set_visible(False)
    reference = results.cell(model, "standard", "uniform", "full", column)
    if reference.value is not None:
        axes.axvline(reference.value * column.scale, color=colour("standard"), linewidth=0.9, linestyle=":")
    drawn = reference.value is not None
    for row, layout in enumerate(NINE):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f4", zorder=0, linewidth=0)
        for variant in variants:
            cell = results.cell(model, variant, layout, "full", column)
            at = row + offsets[variant]
            if cell.value is None:
                if cell.status != "missing":
                    axes.text(0.98, at, cell.status, transform=axes.get_yaxis_transform(), ha="right", va="center",
                              fontsize=style.SMALL, color=style.GREY)  # fmt: skip
                continue
            drawn = True
            value, error = cell.value * column.scale, (cell.stderr or 0.0) * column.scale
            axes.plot([value - error, value + error], [at, at], color=colour(variant), linewidth=0.9, zorder=2)
            axes.plot(value, at, zorder=3, **style.dot(variant, True, 4.2))
    if not drawn:
        axes.text(0.5, 0.5, "no value yet", transform=axes.transAxes, ha="center", color=style.GREY)
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    ticks = [tick for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    # A long number takes the room of two short ones.
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: 1 if high < 1000 else math.ceil(len(ticks) / 2)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    label = "NLU average" if column is AVERAGE else column.label
    axes.set_xlabel(f"{label},\n{column.quantity}", labelpad=1.5)


def _pictures(axes: Axes, wide: float, layers: int) -> None:
    """The name of every layout and, between it and the panel, its layers as a strip of cells."""
    inch = 1 / wide
    cell = 0.57 * inch / layers
    for row, layout in enumerate(NINE):
        axes.text(-0.72 * inch, row, layout_label(layout), transform=axes.get_yaxis_transform(), ha="right",
                  va="center_baseline")  # fmt: skip
        for layer, kept in enumerate(is_standard(layout, layers)):
            axes.add_patch(
                Rectangle(
                    (-0.66 * inch + layer * cell, row - 0.22), cell, 0.44, transform=axes.get_yaxis_transform(),
                    facecolor="#4a4a4a" if kept else "white", edgecolor="#8a8a8a", linewidth=0.35, clip_on=False,
                )
            )  # fmt: skip
