"""Figures 3 and 4: a dot for each model with its error, in panels of a text and some tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from deconattn.exhibits import BOTH, NINE
from deconattn.layouts import is_standard
from deconattn.report import notes, style
from deconattn.report.deltas import LABELS, NOTE, delta_entry, delta_panel, differences
from deconattn.report.dot_panel import GUESS_LINE, Cells, draw_row, limits_of, set_panel
from deconattn.report.draw import Drawing
from deconattn.report.names import (
    AVERAGE,
    HELDOUT,
    PAPER,
    WIKITEXT,
    Column,
    accuracy_column,
    colour,
    count_label,
    family_of,
    in_order,
    layout_label,
)
from deconattn.report.published import TABLE_DESCRIPTIONS, load_published, published_cells
from deconattn.report.results import MISSING, Cell, Results
from deconattn.report.scored import Scored
from deconattn.report.statistics import Difference

SHORT = {"log_perplexity": "Δ, nats a word", "accuracy": "Δ average, points"}
"""Metric of a panel of differences to standard → what stands beneath it, where panels are narrow."""
_ASIDE = {"uniform": -0.14, "even": 0.14}
"""Uniform a little above its line and hybrid below: where they agree both are still seen."""


@dataclass(frozen=True)
class Band:
    """A row of panels of Figure 4: its heading, by column the cells of models and of random guessing, and by metric Δ."""

    heading: str
    cells: dict[Column, Cells]
    chance: dict[Column, Cell]
    deltas: dict[str, dict[tuple[str, str], Difference]]

    @property
    def differences(self) -> list[Difference]:
        return [each for own in self.deltas.values() for each in own.values()]


def figure3(results: Results, options: dict[str, Any]) -> Drawing:
    """Which layers keep standard attention: a row a layout; missing runs are named at the foot."""
    model = options["model"]
    variants = in_order(options["variants"] or _with_layouts(results, model))
    text = WIKITEXT if results.has(model, WIKITEXT) else HELDOUT
    columns = [column for column in (text, AVERAGE) if results.has(model, column)] or [text]
    gaps = notes.run_gaps(results, [model], ["standard", *variants], NINE)
    gaps += notes.outside_grid(results, model, variants, NINE)
    places = [(v, at) for v in variants for at in NINE]
    cells = {c: {place: results.cell(model, *place, "full", c) for place in places} for c in columns}
    scored = Scored(results, model)
    metrics = {c: "accuracy" if c is AVERAGE else "log_perplexity" for c in columns}
    deltas = {c: differences(scored, metric, places) for c, metric in metrics.items()}
    foot = [
        f"Beside a name: the layers, first one left; dark ones keep standard attention. {notes.whisker_note([cells])}",
        NOTE,
        notes.gap_line(gaps),
    ]
    figure = style.sheet(style.DOUBLE_COLUMN, 1.0 + len(NINE) * max(0.215, 0.1 * len(variants)), foot)
    entries = {**style.dots(variants, hybrid=True), "standard": style.STANDARD_LINE}
    entries |= delta_entry(each for own in deltas.values() for each in own.values())
    style.legend(figure, entries, results.heading(model), len(entries) if len(variants) < 3 else 5)
    strips, *panels = figure.subplots(
        1, 1 + 2 * len(columns), width_ratios=[0.6, *(1 for _ in range(2 * len(columns)))]
    )
    _strips(strips, results.shape(model, "layers") or 12)
    offsets = (np.arange(len(variants)) - (len(variants) - 1) / 2) * min(0.26, 0.44 / max(1, len(variants) - 1))
    heights = {(v, at): row + step for row, at in enumerate(NINE) for v, step in zip(variants, offsets, strict=True)}
    for axes, beside, column in zip(panels[::2], panels[1::2], columns, strict=True):
        reference = results.cell(model, "standard", "uniform", "full", column)
        limits = limits_of(column, [*cells[column].values(), reference])
        set_panel(axes, column, cells[column], limits, reference)
        for row, layout in enumerate(NINE):
            draw_row(axes, column, {(v, layout): cells[column][v, layout] for v in variants}, row + offsets)
        label = "NLU average" if column is AVERAGE else column.label
        axes.set_xlabel(f"{label},\n{column.quantity}", labelpad=1.5)
        delta_panel(beside, metrics[column], deltas[column], heights, deltas[column].values())
        beside.set_xlabel(LABELS[metrics[column]].replace(", ", ",\n"), labelpad=1.5)
    for axes in panels:
        for row in range(1, len(NINE), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f4", zorder=-1, linewidth=0)
        axes.set(ylim=(len(NINE) - 0.45, -0.55), yticks=[])
    runs = results.runs[results.runs["variant"].isin(["standard", *variants])]
    return Drawing(figure, runs.loc[runs["run"].isin(results.shown([model], NINE)), "run"].tolist(), gaps)


def _with_layouts(results: Results, model: str) -> list[str]:
    """Variants of the grid that have more layouts than uniform and even; all if there is none."""
    runs = results.runs[(results.runs["model"] == model) & (results.runs["variant"] != "standard")]
    more = runs[~runs["layout"].isin(BOTH)]
    return list((runs if more.empty else more)["variant"])


def _strips(axes: Axes, layers: int) -> None:
    """The name of every layout and its layers as a strip of cells."""
    axes.set(xlim=(0, layers), ylim=(len(NINE) - 0.45, -0.55), xticks=[])
    axes.set_yticks(range(len(NINE)), [layout_label(layout) for layout in NINE])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, layout in enumerate(NINE):
        shades = ["#4a4a4a" if kept else "white" for kept in is_standard(layout, layers)]
        axes.barh([row] * layers, 1, 0.44, range(layers), align="center", color=shades, edgecolor="#8a8a8a",
                  linewidth=0.35, clip_on=False)  # fmt: skip


def figure4(results: Results, options: dict[str, Any]) -> Drawing:
    """All models on a text and some tasks, a row of panels a size, the paper's beneath; gaps are named at the foot."""
    models = options["models"]
    tasks = [accuracy_column(task) for task in options["tasks"]]
    text = WIKITEXT if any(results.has(model, WIKITEXT) for model in models) else HELDOUT
    variants = in_order(v for model in models for v in results.variants(model))
    bands = [_this_run(results, model, variants, [text, *tasks]) for model in models]
    if options["published"]:
        bands.append(_papers(variants, [WIKITEXT, *tasks]))
    gaps = notes.run_gaps(results, models, variants, BOTH)
    places = _places(variants)
    high = (0.19 if len(bands) <= 2 else 0.155) * (max(places.values()) + 1.1)
    alike = {metric: [each for band in bands for each in band.deltas[metric].values()] for metric in LABELS}
    foot = [notes.whisker_note(band.cells for band in bands), NOTE, notes.gap_line(gaps)]
    figure = style.sheet(style.DOUBLE_COLUMN, 0.25 + len(bands) * (high + 0.75), foot)
    style.legend(figure, _entries(bands))
    for part, band in zip(figure.subfigures(len(bands), 1, squeeze=False)[:, 0], bands, strict=True):
        style.title(part, band.heading)
        first, beside, *others, last = part.subplots(1, 2 + len(band.cells))
        for axes, column in zip([first, *others], band.cells, strict=True):
            # One range for a column in all rows of panels, so that they can be compared by eye.
            same = [other for other in bands if column in other.cells]
            limits = limits_of(column, [c for o in same for c in (*o.cells[column].values(), o.chance[column])])
            _band_panel(axes, column, band, limits, places)
        heights = {(v, layout): places[v] + _ASIDE[layout] for v in places for layout in BOTH}
        for axes, metric in zip((beside, last), LABELS, strict=True):
            delta_panel(axes, metric, band.deltas[metric], heights, alike[metric])
            axes.set_xlabel(SHORT[metric], labelpad=1.5)
            axes.set(ylim=first.get_ylim(), yticks=first.get_yticks(), yticklabels=[])
        part.axes[0].set_yticks(list(places.values()), list(places))
    return Drawing(figure, results.shown(models, BOTH), gaps)


def _this_run(results: Results, model: str, variants: Sequence[str], columns: list[Column]) -> Band:
    there = [(v, at) for v in variants for at in BOTH if not results.select_runs(model, v, at).empty]
    scored = Scored(results, model)
    shown = {"log_perplexity": there if scored.text == columns[0] else [], "accuracy": there}
    budget = [f"{count_label(tokens)} tokens"] if (tokens := results.tokens(model)) else []
    return Band(
        ", ".join([f"This run: {results.heading(model)}", *budget, results.seeds_label(model)]),
        {c: {pair: results.cell(model, *pair, "full", c) for pair in there} for c in columns},
        {c: results.baseline("random_guess", c) for c in columns},
        {metric: differences(scored, metric, places) for metric, places in shown.items()},
    )


def _papers(variants: Sequence[str], columns: list[Column]) -> Band:
    published = load_published("table1")
    rows = {(v, at): published_cells(published, v, at, "full", [*columns, AVERAGE]) for v in variants for at in BOTH}
    chance = published_cells(published, "random_guess", "uniform", "full", columns)
    scores = {
        "log_perplexity": {at: log(value) for at, row in rows.items() if row and (value := row[columns[0].key].value)},
        "accuracy": {at: value for at, row in rows.items() if row and (value := row[AVERAGE.key].value)},
    }
    return Band(
        f"Published ({PAPER}): {TABLE_DESCRIPTIONS['table1'].replace(' models', '')}",
        {c: {pair: row[c.key] for pair, row in rows.items() if row} for c in columns},
        {c: chance[c.key] if c.is_accuracy else MISSING for c in columns},
        {
            metric: {
                at: Difference(value - own["standard", "uniform"], "documents", 0)
                for at, value in own.items()
                if at[0] != "standard"
            }
            for metric, own in scores.items()
        },
    )


def _places(variants: Sequence[str]) -> dict[str, float]:
    """The height of every variant's line, counted from the top; families stand a little apart."""
    families = [family_of(variant).key for variant in variants]
    return {v: k + 0.35 * (len(set(families[: k + 1])) - 1) for k, v in enumerate(variants)}


def _entries(bands: Sequence[Band]) -> dict[str, dict[str, Any]]:
    cells = [cell for band in bands for own in band.cells.values() for cell in own.values()]
    ring = {"color": style.GREY, "marker": "o", "markersize": 4.5, "linestyle": "none"}
    entries = {"uniform": ring, "hybrid (even)": {**ring, "markerfacecolor": "white"}, "standard": style.STANDARD_LINE}
    if label := notes.spread_label(cells):
        entries[label] = {"color": style.GREY, "linewidth": 0.9}
    entries |= delta_entry(each for band in bands for each in band.differences)
    if any(cell.value is not None for band in bands for cell in band.chance.values()):
        entries["random guess"] = GUESS_LINE
    return entries


def _band_panel(
    axes: Axes, column: Column, band: Band, limits: tuple[float, float] | None, places: dict[str, float]
) -> None:
    cells = band.cells[column]
    set_panel(axes, column, cells, limits, cells.get(("standard", "uniform"), MISSING), band.chance[column])
    for variant, place in places.items():
        pair = {(variant, layout): cells[variant, layout] for layout in BOTH if (variant, layout) in cells}
        ends = draw_row(axes, column, pair, [place + (variant != "standard") * _ASIDE[layout] for _, layout in pair])
        axes.plot(ends, [place] * len(ends), color=colour(variant), linewidth=0.7, alpha=0.45, zorder=1)
    axes.set_xlabel(f"{column.label}, {column.quantity}", labelpad=1.5)
    axes.set_ylim(max(places.values()) + 0.55, -0.55)
    axes.set_yticks(list(places.values()), [""] * len(places))
