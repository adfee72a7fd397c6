"""Figure 4: all models on a text and two tasks, a row of panels for every size, the paper's 500m beneath ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from deconattn.report import style
from deconattn.report.comparison import LAYOUTS, Band, ours, papers
from deconattn.report.drawing import Drawing
from deconattn.report.gaps import run_gaps
from deconattn.report.names import HELDOUT, WIKITEXT, Column, accuracy_column, family_of, in_order
from deconattn.report.palette import colour
from deconattn.report.results import Cell, Results
from deconattn.report.table_text import number

OPTIONS: dict[str, str] = {
    "models": "the models to draw, a row of panels each, smallest first",
    "tasks": "the tasks beside the text's perplexity (default arc_easy, sciq)",
    "published": "whether the paper's 500m models stand beneath ours (default true)",
}
_WIDEST = 40.0
"""Times the lowest perplexity up to which a panel reaches; what lies beyond is an arrow and its value."""


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 4 for `options["models"]`; values that are missing are left out and named at the foot."""
    models = list(options["models"])
    results.check_models(models)
    tasks = [accuracy_column(task) for task in options.get("tasks", ("arc_easy", "sciq"))]
    text = WIKITEXT if any(results.has(model, WIKITEXT) for model in models) else HELDOUT
    variants = in_order(v for model in models for v in results.variants(model))
    bands = [ours(results, model, variants, [text, *tasks]) for model in models]
    if options.get("published", True):
        bands.append(papers(variants, [WIKITEXT, *tasks]))
    several = len(models) > 1
    gaps = [
        f"{model} {line}" if several else line
        for model in models
        for line in run_gaps(results, model, variants, LAYOUTS)
    ]
    figure = _figure(bands, variants, gaps)
    runs = results.runs
    shown = runs["model"].isin(models) & runs["status"].ne("missing") & runs["layout"].isin(LAYOUTS)
    return Drawing(figure, runs.loc[shown, "run"].tolist(), gaps)


def _figure(bands: list[Band], variants: list[str], gaps: list[str]) -> Figure:
    places = _places(variants)
    width, head = style.DOUBLE_COLUMN, 0.3
    panel = (0.19 if len(bands) <= 2 else 0.155) * (max(places.values()) + 1.1)
    labelled = [n + 1 == len(bands) or bands[n + 1].columns != band.columns for n, band in enumerate(bands)]
    below_panel = [0.44 if label else 0.24 for label in labelled]
    count = len(bands[0].columns)
    # The foot's height must be known before the figure's: it is written once on a figure that is thrown away.
    foot = [style.gap_line(gaps)]
    below = style.footer(Figure(figsize=(width, 4)), foot, width)
    height = head + sum(0.28 + panel + room for room in below_panel) + below
    figure = Figure(figsize=(width, height))
    style.footer(figure, foot, width)
    _legend(figure, bands)
    left, right, gap = 1.06, 0.12, 0.26
    wide = (width - left - right - (count - 1) * gap) / count
    top = height - head
    for order, band in enumerate(bands):
        top -= 0.28
        figure.text(0.08 / width, (top + 0.07) / height, band.heading, fontweight="bold", va="bottom")
        for index, column in enumerate(band.columns):
            box = ((left + index * (wide + gap)) / width, (top - panel) / height, wide / width, panel / height)
            axes = figure.add_axes(box)
            _panel(axes, band, column, places, _range_of(bands, column))
            if labelled[order]:
                axes.set_xlabel(f"{column.label}, {column.quantity}", labelpad=1.5)
            _names(axes, places, visible=index == 0)
        top -= panel + below_panel[order]
    return figure


def _places(variants: Sequence[str]) -> dict[str, float]:
    """The height of every variant's line, counted from the top; families stand a little apart."""
    places: dict[str, float] = {}
    at, previous = 0.0, ""
    for variant in variants:
        family = family_of(variant).key
        at += 0.35 if previous and family != previous else 0.0
        places[variant], previous = at, family
        at += 1.0
    return places


def _range_of(bands: list[Band], column: Column) -> tuple[float, float] | None:
    """One range for a column in all rows of panels, so that they can be compared by eye."""
    points = []
    for band in bands:
        for (_, _, key), cell in band.cells.items():
            if key == column.key and cell.value is not None:
                error = cell.stderr or 0.0
                low = cell.value - error if cell.value > error or column.is_accuracy else cell.value
                points += [low * column.scale, (cell.value + error) * column.scale]
        if column.key in band.chance:
            points.append(band.chance[column.key] * column.scale)
    if not points:
        return None
    low, high = min(points), max(points)
    if column.is_accuracy:
        room = 0.06 * (high - low) or 1.0
        return low - room, high + room
    high = min(high, low * _WIDEST)
    return low / (high / low) ** 0.08 / 1.02, high * (high / low) ** 0.08 * 1.02


def _panel(
    axes: Axes, band: Band, column: Column, places: dict[str, float], limits: tuple[float, float] | None
) -> None:
    style.quiet(axes, "x")
    if limits is not None:
        _scale(axes, column, limits)
    if column.key in band.chance:
        axes.axvline(band.chance[column.key] * column.scale, color=style.GREY, linewidth=0.7, linestyle=(0, (6, 2)))
    reference = band.cells.get(("standard", "uniform", column.key))
    if reference is not None and reference.value is not None:
        axes.axvline(reference.value * column.scale, color=colour("standard"), linewidth=0.9, linestyle=":")
    drawn = False
    for variant, place in places.items():
        cells = [(layout, cell) for layout in LAYOUTS if (cell := band.cells.get((variant, layout, column.key)))]
        values = [cell.value * column.scale for _, cell in cells if cell.value is not None]
        if len(values) == 2:
            axes.plot(values, [place, place], color=colour(variant), linewidth=0.7, alpha=0.45, zorder=1)
        for layout, cell in cells:
            # Uniform a little above its line and hybrid below: where they agree both are still seen.
            at = place if variant == "standard" else place + (-0.14 if layout == "uniform" else 0.14)
            if cell.value is not None:
                drawn = True
                _value(axes, cell, column, variant, layout, at)
            elif cell.status in ("diverged", "infinite"):
                _words(axes, f"{layout} {cell.status}", variant, at, values)
    if not drawn:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", va="center", color=style.GREY)


def _value(axes: Axes, cell: Cell, column: Column, variant: str, layout: str, at: float) -> None:
    value, limit = (cell.value or 0.0) * column.scale, axes.get_xlim()[1]
    if value > limit:
        axes.text(0.995, at - 0.28, f"{number_text(value)} →", transform=axes.get_yaxis_transform(), ha="right",
                  va="center", fontsize=style.SMALL)  # fmt: skip
        axes.plot(0.98, at, transform=axes.get_yaxis_transform(), clip_on=False,
                  **style.dot(variant, layout != "uniform"))  # fmt: skip
        return
    if cell.stderr:
        error = cell.stderr * column.scale
        axes.plot([value - error, value + error], [at, at], color=colour(variant), linewidth=0.9, zorder=2)
    axes.plot(value, at, zorder=3, **style.dot(variant, layout != "uniform"))


def _words(axes: Axes, words: str, variant: str, at: float, values: list[float]) -> None:
    """A word in place of a value, at the side of the panel where its neighbour is not."""
    low, high = axes.get_xlim()
    middle = math.sqrt(low * high) if axes.get_xscale() == "log" else (low + high) / 2
    on_right = not values or values[0] < middle
    axes.text(0.99 if on_right else 0.01, at, words, transform=axes.get_yaxis_transform(), va="center",
              ha="right" if on_right else "left", fontsize=style.SMALL, color=style.GREY,
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip


def number_text(value: float) -> str:
    """A perplexity beyond an axis: `90,000`, or two digits and a power of ten from 100,000 on."""
    main, exponent = number(value, 0)
    return main if exponent is None else f"${main}{{\\times}}10^{{{exponent}}}$"


def _scale(axes: Axes, column: Column, limits: tuple[float, float]) -> None:
    if column.is_accuracy:
        axes.set_xlim(limits)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        return
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(*limits)))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: int) -> str:
    """A tick in full: rounded as values are, two neighbours on a narrow axis would read the same."""
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


def log_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Two to `most` round numbers on a logarithmic axis, as many as there are; even steps where decades are too coarse."""
    best: list[float] = []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [part * 10.0**decade for decade in decades for part in parts if low <= part * 10.0**decade <= high]
        best = ticks if len(best) <= len(ticks) <= most else best
    if len(best) >= 2:
        return best
    return [float(tick) for tick in MaxNLocator(most - 1).tick_values(low, high) if low <= tick <= high]


def _names(axes: Axes, places: dict[str, float], visible: bool) -> None:
    axes.set_ylim(max(places.values()) + 0.55, -0.55)
    axes.set_yticks(list(places.values()), list(places) if visible else [""] * len(places))
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, bands: list[Band]) -> None:
    several = any(cell.stderr_of == "seeds" for band in bands for cell in band.cells.values())
    error = "± deviation over seeds (paper: standard error)" if several else "± standard error"
    grey: dict[str, Any] = {
        "color": style.GREY,
        "markersize": 4.5,
        "markeredgewidth": 1.0,
        "markeredgecolor": style.GREY,
    }
    handles = [
        Line2D([], [], marker="o", linestyle="none", markerfacecolor=style.GREY, label="uniform", **grey),
        Line2D([], [], marker="o", linestyle="none", markerfacecolor="white", label="hybrid (even)", **grey),
        Line2D([], [], color=style.GREY, linewidth=0.9, label=error),
        Line2D([], [], color=colour("standard"), linewidth=0.9, linestyle=":", label="standard"),
    ]
    if any(band.chance for band in bands):
        dashes = (0, (6, 2))
        handles.append(Line2D([], [], color=style.GREY, linewidth=0.7, linestyle=dashes, label="random guess"))
    figure.legend(
        handles=handles, loc="upper right", ncols=len(handles), handletextpad=0.5, columnspacing=1.2, borderaxespad=0.3
    )
