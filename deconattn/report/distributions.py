"""Figures 2 and 6: distribution of a variant's scores before the softmax, a ridge a layer, uniform beside hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deconattn.analysis.bins import LARGE, QUANTILES
from deconattn.report import style
from deconattn.report.attention import analysis_gaps, scores_of, without_map
from deconattn.report.drawing import Drawing
from deconattn.report.names import count_label, layout_label
from deconattn.report.palette import colour
from deconattn.report.results import Results

OPTIONS: dict[str, str] = {"model": "the model to draw"}
LAYOUTS = ("uniform", "even")
_STANDARD_FILL = "#d9d9d9"
_COLUMNS = 200
"""Steps of a ridge across its axis."""
_HEIGHT = 0.88
"""Height of a ridge in distances between layers."""


@dataclass(frozen=True)
class Ridge:
    """One layer's scores: bins (low, high, count; (N,) each, ascending), extremes, quantiles, share beyond 10³."""

    layer: int
    standard: bool
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    minimum: float
    maximum: float
    quantiles: dict[str, float]
    beyond: float


def draw_scores(results: Results, options: dict[str, Any], variant: str, of_what: str) -> Drawing:
    """The figure of `variant` for `options["model"]`; `of_what` says how many scores a replaced layer has.

    A missing run leaves its half empty and is named at the foot.
    """
    model = options["model"]
    results.check_models([model])
    wanted = [(variant, layout) for layout in LAYOUTS]
    rows = {layout: scores_of(results, model, variant, layout) for layout in LAYOUTS}
    halves = {layout: ridges(frame) for layout, frame in rows.items()}
    gaps = analysis_gaps(results, model, wanted)
    gaps += [f"{variant} {layout_label(at)}: not in this grid" for _, at in wanted
             if results.select_runs(model, variant, at).empty]  # fmt: skip
    found = [(variant, layout) for layout in LAYOUTS if halves[layout]]
    notes = [without_map(results, model, wanted, found), style.gap_line(gaps)]
    runs = sorted({run for frame in rows.values() for run in frame["run"]})
    return Drawing(_figure(results, model, variant, halves, of_what, notes), runs, gaps)


def ridges(rows: pd.DataFrame) -> list[Ridge]:
    """A ridge a layer, the first first; the scores of several seeds are pooled.

    The quantiles of several seeds are the means of theirs, the extremes the outermost of any.
    """
    out = []
    for layer in sorted(rows["layer"].unique()):
        own = rows[rows["layer"] == layer]
        bins = own[["bin_low", "bin_high", "count"]].groupby(["bin_low", "bin_high"]).sum().reset_index()
        one = own.drop_duplicates("run")
        minimum, maximum = float(one["minimum"].min()), float(one["maximum"].max())
        out.append(Ridge(
            int(layer), bool(own["standard"].iloc[0]),
            bins["bin_low"].clip(lower=minimum).to_numpy(dtype=float),
            bins["bin_high"].clip(upper=maximum).to_numpy(dtype=float),
            bins["count"].to_numpy(dtype=float), minimum, maximum,
            {name: float(one[name].mean()) for name in QUANTILES},
            float((one["share_beyond_1000"] * one["total"]).sum() / one["total"].sum()),
        ))  # fmt: skip
    return out


@dataclass(frozen=True)
class Axis:
    """The drawn place of a score, asinh(score / linear): linear up to `linear`, logarithmic beyond; ends in places."""

    linear: float
    left: float
    right: float

    def place(self, scores: Any) -> Any:
        return np.arcsinh(np.asarray(scores, dtype=float) / self.linear)


def axis_of(all_ridges: Sequence[Ridge]) -> Axis:
    """One axis for all ridges. It is linear over the middle half of every layer's scores.

    A narrower linear part would show one hump as two, left and right of zero.
    """
    if not all_ridges:
        return Axis(10.0, -1.5, 1.5)
    middle = max(max(abs(ridge.quantiles["p25"]), abs(ridge.quantiles["p75"])) for ridge in all_ridges)
    power = 10.0 ** np.floor(np.log10(max(2 * middle, 1e-6)))
    linear = float(next(m * power for m in (1, 2, 5, 10) if m * power >= 2 * middle))
    low = float(np.arcsinh(min(ridge.minimum for ridge in all_ridges) / linear))
    high = float(np.arcsinh(max(ridge.maximum for ridge in all_ridges) / linear))
    room = 0.03 * (high - low) + 1e-3
    return Axis(linear, low - room, high + room)


def density(ridge: Ridge, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Edges (C + 1,) and heights (C,), 1 at most, of a ridge in equal steps of its axis, over its own range.

    The scores of a bin are taken to lie evenly along it.
    """
    low, high = axis.place(ridge.low), axis.place(ridge.high)
    cumulative = np.concatenate([[0.0], np.cumsum(ridge.counts)])
    places, reached = np.column_stack([low, high]).ravel(), np.repeat(cumulative, 2)[1:-1]
    edges = np.linspace(axis.left, axis.right, _COLUMNS + 1)
    heights = np.diff(np.interp(edges, places, reached))
    first = max(int(np.searchsorted(edges, low[0], side="right")) - 1, 0)
    last = min(int(np.searchsorted(edges, high[-1], side="left")), _COLUMNS)
    return edges[first : last + 1], heights[first:last] / heights.max()


def _figure(
    results: Results, model: str, variant: str, halves: dict[str, list[Ridge]], of_what: str, notes: Sequence[str]
) -> Figure:
    width = style.DOUBLE_COLUMN
    shown = [ridge for half in halves.values() for ridge in half]
    layers = max([ridge.layer for ridge in shown], default=4)
    axis = axis_of(shown)
    text = [_explanation(axis, of_what, results.seeds(model)), *notes]
    head, foot, body = 0.62, 0.42, min(0.42, max(0.18, 4.4 / layers)) * (layers + 0.3)
    height = head + body + foot + style.footer(Figure(figsize=(width, 1)), text, width)
    figure = Figure(figsize=(width, height))
    style.footer(figure, text, width)
    parameters = results.parameters(model)
    size = "" if parameters is None else f", {count_label(parameters)} parameters"
    figure.text(0.05 / width, 1 - 0.06 / height, f"{model}{size}: {variant}", va="top", fontweight="bold")
    _legend(figure, variant)
    left, right, between = 0.42, 0.5, 0.7
    wide = (width - left - right - between) / 2
    for number, layout in enumerate(LAYOUTS):
        x = left + number * (wide + between)
        axes = figure.add_axes((x / width, (height - head - body) / height, wide / width, body / height))
        axes.set_ylim(0.7, layers + 1)
        axes.set_yticks(range(1, layers + 1))
        axes.tick_params(axis="y", length=0, labelsize=style.SMALL)
        axes.spines["left"].set_visible(False)
        score_axis(axes, axis, wide)
        title = layout_label(layout)
        axes.set_title(title[0].upper() + title[1:], loc="left", pad=4, color=style.GREY)
        if number == 0:
            axes.set_ylabel("layer")
        if not halves[layout]:
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", color=style.GREY)
        for ridge in halves[layout]:
            _ridge(axes, ridge, axis, variant, layout != "uniform")
    return figure


def _ridge(axes: Axes, ridge: Ridge, axis: Axis, variant: str, hybrid: bool) -> None:
    base = ridge.layer
    shade = colour("standard" if ridge.standard else variant)
    edges, heights = density(ridge, axis)
    axes.stairs(base + _HEIGHT * heights, edges, baseline=base, fill=True, alpha=0.75, linewidth=0, zorder=2,
                color=_STANDARD_FILL if ridge.standard else shade)  # fmt: skip
    axes.stairs(base + _HEIGHT * heights, edges, baseline=base, color=shade, linewidth=0.5, zorder=2)
    ends, inner = [ridge.minimum, ridge.maximum], [ridge.quantiles["p1"], ridge.quantiles["p99"]]
    axes.plot(axis.place(ends), [base, base], color=shade, linewidth=0.6, marker="|", markersize=4, zorder=3)
    axes.plot(axis.place(inner), [base, base], color=shade, linewidth=1.8, zorder=3, solid_capstyle="butt")
    look = style.dot("standard" if ridge.standard else variant, hybrid, 3.4)
    axes.plot(axis.place(ridge.quantiles["p50"]), base, zorder=4, **{**look, "markeredgewidth": 0.8})
    if ridge.beyond:
        axes.text(1.02, base, _percent(ridge.beyond), transform=axes.get_yaxis_transform(), fontsize=style.SMALL,
                  va="center")  # fmt: skip


def _percent(share: float) -> str:
    return "<0.01 %" if share < 1e-4 else f"{100 * share:.2g} %"


def score_axis(axes: Axes, axis: Axis, inches: float) -> None:
    """Round numbers wherever they have room on an axis `inches` long, and lines where scores count as outliers."""
    axes.set_xlim(axis.left, axis.right)
    powers = [10.0**k for k in range(9, -4, -1)]
    chosen = [0.0]
    for value in [LARGE, *powers, *(5 * p for p in powers), *(2 * p for p in powers)]:
        for signed in (value, -value):
            gaps = [abs(float(axis.place(signed) - axis.place(other))) for other in chosen]
            inside = axis.left <= axis.place(signed) <= axis.right
            if inside and min(gaps) * inches / (axis.right - axis.left) > 0.3:
                chosen.append(signed)
    axes.set_xticks(axis.place(sorted(chosen)), [_tick(value) for value in sorted(chosen)])
    axes.set_xlabel("score before the softmax")
    axes.grid(True, axis="x")
    for at in axis.place([-LARGE, LARGE]):
        if axis.left < at < axis.right:
            axes.axvline(at, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)


def _tick(value: float) -> str:
    if abs(value) < 1000:
        return f"{value:g}".replace("-", "−")
    power = int(np.floor(np.log10(abs(value)) + 1e-9))
    factor = round(abs(value) / 10**power)
    digits = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return ("−" if value < 0 else "") + (f"{factor}·" if factor != 1 else "") + f"10{digits}"


def _legend(figure: Figure, variant: str) -> None:
    height = figure.get_figheight()
    shade = colour(variant)
    handles = [
        Patch(facecolor=shade, alpha=0.75, edgecolor=shade, linewidth=0.5, label=f"{variant} layer"),
        Patch(facecolor=_STANDARD_FILL, edgecolor=colour("standard"), linewidth=0.5, label="standard layer"),
        Line2D([], [], label="median (open: hybrid)", **style.dot(variant, False, 3.4)),
        Line2D([], [], color=style.GREY, linewidth=1.8, label="1st to 99th percentile"),
        Line2D([], [], color=style.GREY, linewidth=0.6, marker="|", markersize=4, label="least to greatest"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, 1 - 0.2 / height), ncols=len(handles), columnspacing=1.1,
        handletextpad=0.4, handlelength=1.5, borderaxespad=0.2,
    )  # fmt: skip


def _explanation(axis: Axis, of_what: str, seeds: int) -> str:
    pooled = f" {seeds} seeds pooled." if seeds > 1 else ""
    large = axis.left < axis.place(-LARGE) or axis.place(LARGE) < axis.right
    beyond = " Dashed: ±10³, with the share of scores beyond, if any, at the right." if large else ""
    return (
        f"Every ridge is as high as its peak. The axis is linear up to about ±{axis.linear:g} and logarithmic beyond "
        f"(asinh). {of_what}{beyond}{pooled}"
    )
