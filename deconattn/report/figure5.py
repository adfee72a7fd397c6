"""Figure 5: the training loss of every model, uniform above hybrid, a column for each size."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from deconattn.report import style
from deconattn.report.curves import Curve, curves_of, smooth
from deconattn.report.drawing import Drawing
from deconattn.report.gaps import run_gaps
from deconattn.report.names import count_label, in_order
from deconattn.report.palette import colour
from deconattn.report.results import Results

OPTIONS: dict[str, str] = {
    "models": "the models to draw, a column each",
    "x_scale": "log (default) or linear",
    "smoothing": "width of the running mean as a share of the curve (default 0.02)",
    "start": "share of training at which the drawn range begins (default 0.01; the first steps dwarf the rest)",
}
_PANELS = (
    ("uniform", "Uniform: every layer replaced (solid)"),
    ("even", "Hybrid: every other layer replaced (dashed)"),
)
_RAW_POINTS = 400


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 5 for `options["models"]`; a missing run is left out and named at the foot."""
    models = list(options["models"])
    results.check_models(models)
    smoothing, start = float(options.get("smoothing", 0.02)), float(options.get("start", 0.01))
    alone = len(models) == 1
    width, height = (style.SINGLE_COLUMN, 4.9) if alone else (style.DOUBLE_COLUMN, 5.0)
    room, head = (1.5, 0.36) if alone else (0.74, 0.58)
    gaps = [line for model in models for line in _gaps(results, model, not alone)]
    behind = "range over seeds" if any(results.seeds(model) > 1 for model in models) else "raw loss"
    foot = [
        f"Curves: running mean over {100 * smoothing:g} % of training, {behind} faint behind it. "
        "Numbers: mean loss of the last 1 % of the steps (ten at least).",
        style.gap_line(gaps),
    ]
    figure = Figure(figsize=(width, height))
    below = style.footer(figure, foot, width)
    axes_width = (width - 0.52 - len(models) * room - (len(models) - 1) * 0.3) / len(models)
    grid = figure.add_gridspec(
        2, len(models), left=0.52 / width, right=1 - room / width, top=1 - head / height,
        bottom=(below + 0.42) / height, hspace=0.2, wspace=(room + 0.3) / axes_width,
    )  # fmt: skip
    runs: list[str] = []
    for column, model in enumerate(models):
        panels = {layout: curves_of(results, model, layout, smoothing) for layout, _ in _PANELS}
        limits = _limits([curve for curves in panels.values() for curve in curves], start)
        for row, (layout, title) in enumerate(_PANELS):
            axes = figure.add_subplot(grid[row, column])
            _panel(axes, panels[layout], limits, str(options.get("x_scale", "log")), names=alone)
            axes.set_title(title if alone else title.split(":")[0], loc="left", pad=4, color=style.GREY)
            if column == 0:
                axes.set_ylabel("training loss, nats a token")
            if row == 0:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("training tokens")
        _heading(figure, results, model, grid[0, column].get_position(figure).x0, head - 0.31)
        shown = results.runs[(results.runs["model"] == model) & results.runs["status"].ne("missing")]
        runs += shown.loc[shown["layout"].isin([layout for layout, _ in _PANELS]), "run"].tolist()
    if not alone:
        style.variant_legend(figure, in_order(v for model in models for v in results.variants(model)))
    return Drawing(figure, runs, gaps)


def _gaps(results: Results, model: str, several: bool) -> list[str]:
    lines = [
        line
        for line in run_gaps(results, model, results.variants(model), [layout for layout, _ in _PANELS])
        if not line.endswith("not evaluated yet")
    ]
    return [f"{model} {line}" if several else line for line in lines]


def _limits(curves: list[Curve], start: float) -> tuple[float, float, float, float]:
    """Left, right, bottom, top: from `start` of the training on, all smoothed curves with room around them."""
    if not curves:
        return 1.0, 10.0, 0.0, 1.0
    right = max(curve.tokens[-1] for curve in curves)
    left = max(right * start, min(curve.tokens[0] for curve in curves))
    shown = np.concatenate([curve.smooth[curve.tokens >= left] for curve in curves])
    if not len(shown):
        shown = np.concatenate([curve.smooth for curve in curves])
    low, high = float(shown.min()), float(shown.max())
    return left, right, low - 0.04 * (high - low), high + 0.02 * (high - low)


def _panel(axes: Axes, curves: list[Curve], limits: tuple[float, float, float, float], scale: str, names: bool) -> None:
    left, right, bottom, top = limits
    axes.set_xscale(scale)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    style.quiet(axes, "y")
    axes.tick_params(axis="x", length=2.5)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if not curves:
        axes.text(0.5, 0.5, "no run to draw", transform=axes.transAxes, ha="center", color=style.GREY)
    for number, curve in enumerate(curves):
        _draw_curve(axes, curve, number, len(curves))
    _label_ends(axes, curves, limits, names)
    _zoom(axes, curves, limits)


def _draw_curve(axes: Axes, curve: Curve, number: int, of: int) -> None:
    look = style.line(curve.variant, curve.hybrid)
    if curve.seeds > 1:
        every = _evenly(axes, curve.tokens, _RAW_POINTS)
        axes.fill_between(
            curve.tokens[every], curve.low[every], curve.high[every], color=look["color"], alpha=0.18, linewidth=0
        )
    else:
        every = _evenly(axes, curve.tokens, _RAW_POINTS)
        axes.plot(curve.tokens[every], curve.raw[every], color=look["color"], alpha=0.16, linewidth=0.4, zorder=1)
    every = _evenly(axes, curve.tokens, 2 * _RAW_POINTS)
    axes.plot(curve.tokens[every], curve.smooth[every], zorder=3, **look)
    # Markers stand at other places on each curve, so that curves that lie on each other can be told apart.
    marks = _evenly(axes, curve.tokens, 5, offset=number / of)
    axes.plot(curve.tokens[marks], curve.smooth[marks], zorder=4, **style.dot(curve.variant, curve.hybrid, 3.2))
    if curve.diverged:
        axes.plot(
            curve.tokens[-1], curve.smooth[-1], "x", color=look["color"], markersize=8, markeredgewidth=1.8, zorder=6
        )


def _evenly(axes: Axes, tokens: np.ndarray, count: int, offset: float = 0.5) -> np.ndarray:
    """Indices of about `count` points that lie evenly along the axis as it is drawn."""
    left, right = axes.get_xlim()
    places = (np.arange(count) + offset) / count
    log = axes.get_xscale() == "log"
    at = left * (right / left) ** places if log else left + (right - left) * places
    index = np.searchsorted(tokens, at[at <= tokens[-1]])
    # A line reaches from end to end; markers keep their distance from both.
    ends = [np.searchsorted(tokens, min(left, tokens[-1])), len(tokens) - 1] if count > 20 else []
    return np.unique(np.append(index, ends).astype(int))


def _label_ends(axes: Axes, curves: list[Curve], limits: tuple[float, float, float, float], names: bool) -> None:
    """The final loss of every curve at its end, with the variant's name where no legend says it."""
    _, _, bottom, top = limits
    frame, figure = axes.get_position(), axes.get_figure(root=True)
    assert figure is not None
    inch = 1 / (frame.width * figure.get_figwidth())
    gap = 1.3 * style.SMALL / (frame.height * figure.get_figheight() * 72)
    last = [curve.smooth[-1] if curve.diverged else curve.final for curve in curves]
    ends = [(float(value) - bottom) / (top - bottom) for value in last]
    for curve, end, place in zip(curves, ends, style.spread_out(ends, gap, 0.02, 0.98), strict=True):
        if not curve.diverged:
            axes.plot([1, 1 + 0.06 * inch, 1 + 0.13 * inch], [end, place, place], transform=axes.transAxes,
                      color=colour(curve.variant), linewidth=0.5, clip_on=False)  # fmt: skip
        axes.plot(1 + 0.18 * inch, place, transform=axes.transAxes, clip_on=False,
                  **style.dot(curve.variant, curve.hybrid, 3.4))  # fmt: skip
        value = "diverged" if curve.diverged else f"{curve.final:.2f}"
        axes.text(1 + 0.25 * inch, place, f"{curve.variant} {value}" if names else value, transform=axes.transAxes,
                  va="center_baseline", fontsize=style.SMALL)  # fmt: skip


def _zoom(axes: Axes, curves: list[Curve], limits: tuple[float, float, float, float]) -> None:
    """The last fifth of training, enlarged, where the corner above the curves is free."""
    left, right, bottom, top = limits
    box = (0.5, 0.53, 0.49, 0.4)
    log = axes.get_xscale() == "log"
    edge = left * (right / left) ** (box[0] - 0.12) if log else left + (right - left) * (box[0] - 0.12)
    ceiling = bottom + (box[1] - 0.12) * (top - bottom)
    lasting = [curve for curve in curves if not curve.diverged]
    if len(lasting) < 2 or any((curve.smooth[curve.tokens >= edge] > ceiling).any() for curve in curves):
        return
    inset = axes.inset_axes(box)
    for number, curve in enumerate(lasting):
        # Twice smoothed: what is left of the noise of single steps would hide the distances.
        calm = smooth(curve.smooth, 0.06)
        late = np.flatnonzero(curve.tokens >= 0.8 * right)
        if not len(late):
            continue
        late = late[:: max(1, len(late) // 200)]
        inset.plot(curve.tokens[late], calm[late], **{**style.line(curve.variant, curve.hybrid), "linewidth": 0.9})
        marks = late[[(len(late) * (2 * k + 1) + number * len(late) // len(lasting)) // 4 for k in range(2)]]
        inset.plot(curve.tokens[marks], calm[marks], **style.dot(curve.variant, curve.hybrid, 2.6))
    inset.set_xlim(0.8 * right, right)
    inset.set_xticks([])
    inset.yaxis.set_major_locator(MaxNLocator(3))
    inset.tick_params(labelsize=style.SMALL, length=2, pad=1)
    inset.set_title("last fifth", fontsize=style.SMALL, pad=2, color=style.GREY)
    for side in inset.spines.values():
        side.set(visible=True, linewidth=0.5, color=style.GREY)


def _heading(figure: Figure, results: Results, model: str, left: float, down: float) -> None:
    parameters, seeds = results.parameters(model), results.seeds(model)
    size = "" if parameters is None else f", {count_label(parameters)} parameters"
    text = f"{model}{size}" + (f", {seeds} seeds" if seeds > 1 else "")
    figure.text(left, 1 - down / figure.get_figheight(), text, va="top", fontweight="bold")
