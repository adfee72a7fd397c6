"""Figures 1, 7 and 8: indicators of attention, a chart a model: a heat map layer × indicator, or the paper's radar."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deconattn.analysis.schema import ATTENTION
from deconattn.exhibits import BOTH
from deconattn.report import style
from deconattn.report.draw import Drawing
from deconattn.report.names import family_of, in_order, run_label
from deconattn.report.notes import analysis_gaps, gap_line, without_map
from deconattn.report.results import Results

INDICATORS = {
    "entropy": "entropy, nats",
    "concentration": "concentration",
    "head_diversity": "head diversity",
    **{f"local_focus_{n}": f"local {n}" for n in range(4)},
    "sink": "sink",
}
"""Indicators as they are stored and as they are written."""
SHARES = ("local_focus_0", "local_focus_1", "local_focus_2", "local_focus_3", "sink")
"""Indicators that are shares of attention: their scales begin at 0."""
_ACROSS = 3

Pair = tuple[str, str]
"""A variant and a layout."""


@dataclass(frozen=True)
class Layers:
    """Indicators of one model of the grid: a row a layer (index, from 1), a column each of `INDICATORS`.

    standard: which layers of a hybrid keep standard attention.
    """

    values: pd.DataFrame
    standard: pd.Series
    runs: tuple[str, ...]


Chart = tuple[str, Layers | None]
"""A title, empty where there is no chart, and what is drawn under it."""


def attention_of(results: Results, model: str) -> dict[Pair, Layers]:
    """(variant, layout) → layers of the model's runs that have maps; means over heads, and over seeds."""
    rows = results.read("attention", ATTENTION)
    found = {}
    for (variant, layout), own in rows[rows["model"] == model].groupby(["variant", "layout"]):
        means = own.pivot_table(index=["layer", "standard"], columns="indicator", values="value", aggfunc="mean")
        values = means.reindex(columns=list(INDICATORS)).reset_index("standard")
        runs = tuple(sorted(own["run"].unique()))
        found[str(variant), str(layout)] = Layers(
            values[list(INDICATORS)], values["standard"] & (variant != "standard"), runs
        )
    return found


def scales_of(found: Collection[Layers]) -> pd.DataFrame:
    """The least and greatest value of each indicator over all these models: index `low`, `high`.

    Figures 1, 7 and 8 take those of the same models, so a colour means the same in all three.
    """
    stacked = pd.concat([layers.values for layers in found])
    low = stacked.min().where(~stacked.columns.isin(SHARES), 0.0)
    return pd.DataFrame({"low": low, "high": stacked.max()}).T


def place(values: pd.DataFrame, scales: pd.DataFrame) -> pd.DataFrame:
    """Values between 0 (the least of their scale) and 1 (the greatest); 0.5 where all are equal."""
    low, high = scales.to_numpy()
    span = np.where(high > low, high - low, 1.0)
    return values.sub(low).div(span).add(np.where(high > low, 0.0, 0.5))


def figure1(results: Results, options: dict[str, Any]) -> Drawing:
    """The standard model and every uniform variant side by side."""
    pairs = [(variant, "uniform") for variant in in_order(options["variants"] or results.variants(options["model"]))]
    found = attention_of(results, options["model"])
    return _draw(results, options, found, pairs, [pair for pair in pairs if pair in found])


def figure7(results: Results, options: dict[str, Any]) -> Drawing:
    """Uniform beside hybrid, of the variants in mathematical form."""
    return _beside(results, options, ("form",))


def figure8(results: Results, options: dict[str, Any]) -> Drawing:
    """Uniform beside hybrid, of the variants in what queries and keys read, and a user's own."""
    return _beside(results, options, ("sequence", "current", "own"))


def _beside(results: Results, options: dict[str, Any], families: Collection[str]) -> Drawing:
    """A line a variant, uniform beside hybrid; the standard model in front of the first."""
    known = [v for v in results.variants(options["model"]) if family_of(v).key in families]
    variants = [v for v in in_order(options["variants"] or known) if v != "standard"]
    charts: list[Pair | None] = [chart for v in variants for chart in (None, *((v, layout) for layout in BOTH))]
    charts = [("standard", "uniform"), *charts[1:]]
    return _draw(results, options, attention_of(results, options["model"]), [c for c in charts if c], charts)


def _draw(
    results: Results,
    options: dict[str, Any],
    found: dict[Pair, Layers],
    pairs: Sequence[Pair],
    charts: Sequence[Pair | None],
) -> Drawing:
    """The charts, None for a place without one; what of `pairs` is missing is named at the foot."""
    model = options["model"]
    shown = [found[pair] for pair in pairs if pair in found]
    gaps = analysis_gaps(results, model, pairs)
    notes = [without_map(results, model, pairs, found), gap_line(gaps)]
    if not shown:
        return Drawing(style.blank(results.heading(model), notes), [], gaps)
    scales = scales_of([layers for (_, layout), layers in found.items() if layout in BOTH])
    seeds = " and seeds" if any(len(layers.runs) > 1 for layers in shown) else ""
    ranges = "; ".join(f"{INDICATORS[str(name)]} {low:.3g} to {high:.3g}" for name, (low, high) in scales.items())
    explanation = (
        f"Means over heads{seeds}. Each indicator has one scale in Figures 1, 7 and 8: {ranges}. Sink is the weight on the "
        "first token, local n the weight on the token n positions back."
    )
    if options["form"] != "radar" and any(pair and pair[1] != "uniform" for pair in charts):
        explanation += " A square marks a layer with standard attention."
    rows = -(-len(charts) // _ACROSS)
    titled = [(run_label(*pair), found.get(pair)) if pair else ("", None) for pair in charts]
    titled += [("", None)] * (rows * _ACROSS - len(charts))
    form = _radars if options["form"] == "radar" else _heat_maps
    figure = form(titled, rows, scales, results.heading(model), [explanation, *notes])
    return Drawing(figure, [run for layers in shown for run in layers.runs], gaps)


def _heat_maps(charts: Sequence[Chart], rows: int, scales: pd.DataFrame, heading: str, foot: Sequence[str]) -> Figure:
    """Layers × indicators, each indicator on its scale; a square marks a layer that keeps standard attention."""
    number = max(int(layers.values.index.max()) for _, layers in charts if layers)
    figure = style.sheet(style.DOUBLE_COLUMN, 1.45 + rows * (min(2.6, max(0.7, 0.16 * number)) + 0.28), foot)
    style.title(figure, heading)
    grid = figure.subplots(rows, _ACROSS, squeeze=False)
    every = next(step for step in (1, 2, 3, 4, 6) if number / step <= 12 or step == 6)
    for axes, (_, layers) in _charts(grid, charts):
        drawn = place(layers.values, scales).reindex(range(1, number + 1))
        mesh = axes.pcolormesh(drawn, cmap="viridis_r", vmin=0, vmax=1, edgecolors="white", linewidth=0.4)
        labelled = range(every, number + 1, every)
        axes.set_yticks([layer - 0.5 for layer in labelled], [str(layer) for layer in labelled])
        axes.set_xticks(np.arange(len(INDICATORS)) + 0.5, list(INDICATORS.values()), rotation=90)
        axes.tick_params(length=0, labelsize=style.SMALL)
        axes.spines[:].set_visible(False)
        kept = [row + 0.5 for row, standard in enumerate(layers.standard) if standard]
        if kept:
            axes.plot([1.03] * len(kept), kept, "s", color="black", markersize=2.6, clip_on=False,
                      transform=axes.get_yaxis_transform())  # fmt: skip
    for column in grid.T:
        # Indicators are named under the lowest chart alone.
        for axes in [axes for axes in column if axes.axison][:-1]:
            axes.tick_params(labelbottom=False)
    for axes in [axes for axes in grid[:, 0] if axes.axison]:
        axes.set_ylabel("layer")
    bar = figure.colorbar(mesh, ax=list(grid.flat), location="top", shrink=0.3, aspect=28, pad=0.01, anchor=(1.0, 1.0))
    bar.set_ticks([0, 1], labels=["least", "greatest"])
    bar.ax.tick_params(length=0, labelsize=style.SMALL)
    bar.outline.set_visible(False)
    return figure


def _radars(charts: Sequence[Chart], rows: int, scales: pd.DataFrame, heading: str, foot: Sequence[str]) -> Figure:
    """One outline a layer, the layer as lightness, all charts on one scale."""
    outlines = {title: radii(layers.values, scales) for title, layers in charts if layers}
    # Rings stand every quarter.
    limit = max(1.0, float(np.ceil(4 * max(own.to_numpy().max() for own in outlines.values()) - 1e-6)) / 4)
    ring = f"The outermost ring is {limit:g}; local focus is drawn ×2. Dotted: layers that keep standard attention."
    figure = style.sheet(style.DOUBLE_COLUMN, 0.5 + 2.4 * rows, [foot[0], ring, *foot[1:]])
    number = max(int(own.index.max()) for own in outlines.values())
    # From light to dark, every one with a contrast of 3 : 1 or more against white.
    shades = matplotlib.colormaps["magma"](np.linspace(0.66, 0.08, number))
    named = sorted({1, number, *range(4, number, number // 6)}) if number > 6 else range(1, number + 1)
    style.legend(figure, {f"layer {layer}": {"color": shades[layer - 1]} for layer in named}, heading)
    grid = figure.subplots(rows, _ACROSS, squeeze=False, subplot_kw={"projection": "polar"})
    angles = np.linspace(0, 2 * np.pi, len(INDICATORS) + 1)
    names = [name.split(",")[0].replace(" d", "\nd") for name in INDICATORS.values()]
    for axes, (title, layers) in _charts(grid, charts):
        # The first spoke points upwards, the others follow clockwise.
        axes.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, limit))
        axes.set_xticks(angles[:-1], names)
        rings = np.arange(0.25, limit + 0.01, 0.25)
        axes.set_yticks(rings, [f"{ring:g}" if ring in (0.5, 1) else "" for ring in rings])
        axes.set_rlabel_position(180 * 9 / 8)
        axes.tick_params(labelsize=style.SMALL, pad=1, colors=style.GREY, labelcolor="black")
        axes.spines["polar"].set_visible(False)
        for (layer, row), kept in zip(outlines[title].iterrows(), layers.standard, strict=True):
            look = {"color": shades[int(str(layer)) - 1], "linestyle": ":" if kept else "-", "linewidth": 0.8}
            axes.plot(angles, [*row, row.iloc[0]], **look)
    return figure


def _charts(grid: np.ndarray, charts: Sequence[Chart]) -> Iterator[tuple[Any, Any]]:
    """Axes and chart of what is there; the others are named and left empty."""
    for axes, (title, layers) in zip(grid.flat, charts, strict=True):
        axes.set_title(title, loc="center" if axes.name == "polar" else "left")
        if layers:
            yield axes, (title, layers)
        else:
            axes.set(xticks=[], yticks=[])
            axes.set_axis_off()
            style.empty(axes, "nothing to draw" if title else "")


def radii(values: pd.DataFrame, scales: pd.DataFrame) -> pd.DataFrame:
    """Distances from the centre: on the scale of an indicator; a share as it is, local focus twice as far."""
    shares = values[list(SHARES)].mul([1.0 if name == "sink" else 2.0 for name in SHARES])
    return place(values, scales).assign(**{name: shares[name] for name in SHARES})
