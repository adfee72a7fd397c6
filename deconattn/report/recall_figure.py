"""`figure_recall`: accuracy in associative recall by variant and layout, over training, distance and number of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from deconattn.exhibits import THREE
from deconattn.report import style
from deconattn.report.draw import Drawing
from deconattn.report.names import layout_label
from deconattn.report.notes import gap_line, run_gaps
from deconattn.report.results import Results

GUESSES: dict[str, dict[str, Any]] = {
    "random_guess": {"color": style.GREY, "linewidth": 0.8, "linestyle": "--"},
    "random_pair": {"color": style.GREY, "linewidth": 0.8, "linestyle": "-."},
}
"""Baseline → how its line looks."""
ASIDE = {"uniform": -0.25, "even": 0.0, "odd": 0.25}  # of a variant's line, where all three layouts are shown
SMOOTHING = 0.03  # width of the running mean of a loss, as a share of the curve


def figure_recall(results: Results, options: dict[str, Any]) -> Drawing:
    """`figure_recall` for `options["model"]`; a missing run is left out and named at the foot."""
    model = options["model"]
    values, guesses = _values(results, model), _values_of_guesses(results)
    variants, pairs = results.variants(model), sorted(guesses["pairs"].unique())
    there = results.runs.loc[results.runs["model"] == model, "layout"].unique()
    layouts = [layout for layout in THREE if layout in there]
    gaps = run_gaps(results, [model], variants, THREE)
    over = "Means over seeds, with their range" if results.seeds(model) > 1 else "One seed, so no range"
    foot = [
        f"{over}. An answer counts if its token is the most likely of all. A guess "
        "among the sequence's pairs is right more often than once in P, as two pairs may share a value. Distance: how "
        "many pairs and queries back the key was last seen.",
        gap_line(gaps),
    ]
    high, count = 0.35 + 0.24 * len(variants), 3 if len(pairs) > 1 else 2  # one number of pairs makes no line
    figure = style.sheet(style.DOUBLE_COLUMN, high + count * 1.55 + 0.6, foot)
    entries = {**style.dots(variants), **{f"{layout_label(x)}": _mark("standard", x) for x in layouts}}
    entries |= {name.replace("_", " "): look for name, look in GUESSES.items()}
    style.legend(figure, entries, f"{results.heading(model)}, {results.seeds_label(model)}", 7)
    top, *rows = figure.subfigures(1 + count, 1, squeeze=False, height_ratios=[high, *[1.55] * count])[:, 0]
    _dots(top, values, guesses, variants, layouts)
    most = max(pairs, default=0)
    far, overall = values[values["pairs"].eq(most) & values["distance"].gt(0)], values[values["distance"] == 0]
    curves = results.training[results.training["model"] == model]

    def losses(axes: Axes, layout: str) -> None:
        _losses(axes, curves, layout, variants, guesses)

    def over_distance(axes: Axes, layout: str) -> None:
        _over(axes, far, "distance", layout, variants)

    def over_pairs(axes: Axes, layout: str) -> None:
        _over(axes, overall, "pairs", layout, variants, guesses)

    _panels(rows[0], layouts, losses, "update", "loss of answers, nats")
    _panels(rows[1], layouts, over_distance, f"distance to the pair, one of {most}", "accuracy, %")
    if count > 2:
        _panels(rows[2], layouts, over_pairs, "pairs", "accuracy, %")
    return Drawing(figure, results.shown([model], THREE), gaps)


def _values(results: Results, model: str) -> pd.DataFrame:
    """A row for each variant, layout, number of pairs and distance (0: all): mean, low and high over seeds, in percent."""
    rows = results.evaluation
    rows = rows[(rows["model"] == model) & (rows["mode"] == "full") & rows["task"].str.startswith("recall_")]
    distance = rows["metric"].str.extract(r"_(\d+)$")[0].fillna(0).astype(int)
    rows = rows.assign(pairs=_pairs(rows["task"]), distance=distance, value=100 * rows["value"])
    place = ["variant", "layout", "pairs", "distance"]
    return rows.groupby(place, as_index=False).agg(mean=("value", "mean"), low=("value", "min"), high=("value", "max"))


def _values_of_guesses(results: Results) -> pd.DataFrame:
    rows = results.baselines
    rows = rows[rows["baseline"].isin(list(GUESSES)) & rows["task"].str.startswith("recall_")]
    return rows.assign(pairs=_pairs(rows["task"]), value=100 * rows["value"])


def _pairs(tasks: pd.Series[str]) -> pd.Series[int]:
    return tasks.str.removeprefix("recall_").astype(int)


def _mark(variant: str, layout: str) -> dict[str, Any]:
    """Filled: uniform; open: even; half filled: odd."""
    look = style.dot(variant, layout != "uniform")
    return look | {"fillstyle": "left", "markerfacecolor": look["color"]} if layout == "odd" else look


def _of(rows: pd.DataFrame, variant: str, layout: str) -> pd.DataFrame:
    """The rows of a variant in a layout; the standard model counts as any of the layouts."""
    return rows[(rows["variant"] == variant) & (rows["layout"] == ("uniform" if variant == "standard" else layout))]


def _dots(
    part: SubFigure, values: pd.DataFrame, guesses: pd.DataFrame, variants: Sequence[str], layouts: Sequence[str]
) -> None:
    pairs = sorted(guesses["pairs"].unique())
    for axes, count in zip(part.subplots(1, max(1, len(pairs)), squeeze=False, sharey=True)[0], pairs, strict=False):
        axes.set_title(f"{count} pairs", color=style.GREY)
        for name, look in GUESSES.items():
            for value in guesses.loc[guesses["pairs"].eq(count) & guesses["baseline"].eq(name), "value"]:
                axes.axvline(value, zorder=1, **look)
        own = values[values["pairs"].eq(count) & values["distance"].eq(0)]
        for row, variant in enumerate(variants):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f4", zorder=0, linewidth=0)
            for layout in layouts[:1] if variant == "standard" else layouts:
                place = row + (0.0 if variant == "standard" else ASIDE[layout])
                for cell in _of(own, variant, layout).itertuples():
                    look = _mark(variant, layout)
                    axes.plot([cell.low, cell.high], [place] * 2, color=look["color"], linewidth=0.9, zorder=2)
                    axes.plot(cell.mean, place, zorder=3, **look)
        axes.set(xlim=(-2, 102), ylim=(len(variants) - 0.5, -0.5))
        axes.set_xlabel("accuracy, %", labelpad=1.5)
        axes.set_yticks(range(len(variants)), variants)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")


def _panels(part: SubFigure, layouts: Sequence[str], draw: Callable[[Axes, str], None], x: str, y: str) -> None:
    """A panel for each layout, with the labels of its axes."""
    panels = part.subplots(1, len(layouts), squeeze=False, sharex=True, sharey=True)[0]
    for axes, layout in zip(panels, layouts, strict=True):
        axes.set_title(layout_label(layout).capitalize(), color=style.GREY)
        axes.grid(True, axis="y")
        draw(axes, layout)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(x, labelpad=1.5)
    panels[0].set_ylabel(y)


def _losses(axes: Axes, rows: pd.DataFrame, layout: str, variants: Sequence[str], guesses: pd.DataFrame) -> None:
    """The running mean of the training loss over updates; lines where all values, or the sequence's P, are equally likely."""
    for order, variant in enumerate(variants):
        curves = _of(rows, variant, layout).pivot(index="step", columns="run", values="loss").astype(float)
        if curves.empty:
            continue
        smooth = curves.rolling(max(1, round(SMOOTHING * len(curves))), center=True, min_periods=1).mean().mean(axis=1)
        axes.plot(smooth, **style.line(variant, layout != "uniform" and variant != "standard"))
        every = (order / len(variants) * 0.2, 0.2)
        axes.plot(smooth, markevery=every, zorder=3, **(_mark(variant, layout) | {"markersize": 3.2}))
    if not guesses.empty:
        own = guesses[guesses["baseline"] == "random_pair"]
        one_of_p = float(np.average(np.log(own["pairs"].astype(float)), weights=own["items"].astype(float)))
        guess = guesses.loc[guesses["baseline"] == "random_guess", "value"].mean() / 100
        for value, look in zip((-math.log(guess), one_of_p), GUESSES.values(), strict=True):
            axes.axhline(value, zorder=1, **look)
    axes.set_ylim(bottom=0)


def _over(
    axes: Axes,
    rows: pd.DataFrame,
    x: str,
    layout: str,
    variants: Sequence[str],
    guesses: pd.DataFrame | None = None,
) -> None:
    """Accuracy over a column of `_values`, with its range over seeds; guesses, too, where they are given."""
    for name, own in guesses.sort_values(x).groupby("baseline") if guesses is not None else ():
        axes.plot(own[x], own["value"], zorder=1, **GUESSES[str(name)])
    for variant in variants:
        line = _of(rows, variant, layout).sort_values(x)
        look = style.line(variant, layout != "uniform" and variant != "standard")
        axes.vlines(line[x], line["low"], line["high"], color=look["color"], linewidth=0.7)
        axes.plot(line[x], line["mean"], **look)
        axes.plot(line[x], line["mean"], zorder=3, **(_mark(variant, layout) | {"markersize": 3.4}))
    axes.set_ylim(-3, 103)
