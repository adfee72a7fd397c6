"""Figure 5: the training loss of every model, uniform above hybrid, each above its difference to standard attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

from deconattn.exhibits import BOTH
from deconattn.report import style
from deconattn.report.draw import Drawing
from deconattn.report.names import colour, count_label, in_order
from deconattn.report.notes import gap_line, run_gaps
from deconattn.report.results import Results

_POINTS = 800  # at which a curve is drawn
_HEADS = {"uniform": "Uniform: every layer replaced (solid)", "even": "Hybrid: every other layer replaced (dashed)"}
_CLOSE = 0.05  # nats; the part of the axis of differences that is linear
_LABEL = 0.07  # height of a label with the room around it, in heights of a panel


@dataclass(frozen=True)
class Curve:
    """One model's losses over tokens (index), a column a seed, and what they came to.

    delta: its losses minus those of the standard model of the same seed, so on the same batches, smoothed alike.
    """

    variant: str
    hybrid: bool
    raw: pd.DataFrame
    smooth: pd.DataFrame
    delta: pd.DataFrame
    final: float
    diverged: bool


def figure5(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 5 for `options["models"]`; a missing run is left out and named at the foot."""
    models = options["models"]
    alone = len(models) == 1
    variants = in_order(v for model in models for v in results.variants(model))
    gaps = run_gaps(results, models, variants, BOTH, without="evaluate")
    behind = "range over seeds" if any(results.seeds(model) > 1 for model in models) else "raw loss"
    foot = [
        f"Curves: running mean over {100 * options['smoothing']:g} % of training, {behind} faint behind it. "
        "Numbers: mean loss of the last 1 % of the steps (ten at least). Δ: step by step, on the same batches, and smoothed "
        "alike; its axis is linear within ±0.05 and logarithmic beyond.",
        gap_line(gaps),
    ]
    figure = style.sheet(style.SINGLE_COLUMN if alone else style.DOUBLE_COLUMN, 6.4, foot)
    headings = [
        results.heading(model) + (f", {results.seeds_label(model)}" if results.seeds(model) > 1 else "")
        for model in models
    ]
    if alone:
        style.title(figure, headings[0])
    else:
        style.legend(figure, style.dots(variants))
    panels = figure.subplots(4, len(models), squeeze=False, sharex="col", height_ratios=[2, 1, 2, 1])
    for column, model in enumerate(models):
        for first in (0, 1):
            panels[first + 2, column].sharey(panels[first, column])
        panels[0, column].set_xscale(options["x_scale"])
        curves = {layout: curves_of(results, model, layout, options["smoothing"]) for layout in BOTH}
        _limit(
            panels[0, column], panels[1, column], [curve for own in curves.values() for curve in own], options["start"]
        )
        for row, layout in enumerate(BOTH):
            axes, beneath = panels[2 * row : 2 * row + 2, column]
            axes.set_title(_HEADS[layout] if alone else _HEADS[layout].split(":")[0], color=style.GREY)
            for each in (axes, beneath):
                each.grid(True, axis="y")
            axes.yaxis.set_major_locator(MaxNLocator(6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            for order, curve in enumerate(curves[layout]):
                _draw(axes, curve, order / len(curves[layout]))
                _draw_delta(beneath, curve, order / len(curves[layout]))
            if curves[layout]:
                _label(axes, curves[layout], names=alone)
            else:
                style.empty(axes, "no run to draw")
        if not alone:
            panels[0, column].set_title(f"{headings[column]}\nUniform", color="black")
        panels[3, column].set_xlabel("training tokens")
    for axes, label in zip(panels[:, 0], ("training loss, nats a token", "Δ to standard") * 2, strict=True):
        axes.set_ylabel(label)
    return Drawing(figure, results.shown(models, BOTH), gaps)


def curves_of(results: Results, model: str, layout: str, smoothing: float) -> list[Curve]:
    """The curves of a model in one layout, standard among them; variants without a training curve are left out."""
    curves: list[Curve] = []
    standard = pd.DataFrame()
    for variant in results.variants(model):
        runs = results.select_runs(model, variant, "uniform" if variant == "standard" else layout)
        steps = results.training[results.training["run"].isin(runs["run"])]
        # Seeds were thinned alike and stand in step.
        raw = (
            steps.pivot(index="tokens", columns="seed", values="loss").astype(float).replace([np.inf, -np.inf], np.nan)
        )
        raw = raw.dropna(how="all")
        if not raw.empty:
            window = max(1, round(len(raw) * smoothing))
            standard = raw if variant == "standard" else standard
            # Where one seed ended early the mean is over the others.
            smooth, delta = (
                losses.interpolate().rolling(window, center=True, min_periods=1).mean().where(losses.notna())
                for losses in (raw, raw.sub(standard).dropna(how="all"))
            )
            hybrid = layout == "even" and variant != "standard"
            diverged = bool((runs["status"] == "diverged").all())
            curves.append(Curve(variant, hybrid, raw, smooth, delta, float(runs["final_train_loss"].mean()), diverged))
    return curves


def _limit(axes: Axes, beneath: Axes, curves: Sequence[Curve], start: float) -> None:
    """Set the ranges: from `start` of the training on, all smoothed curves, and their differences, with room around them."""
    if not curves:
        return
    right = max(curve.raw.index[-1] for curve in curves)
    left = max(right * start, min(curve.raw.index[0] for curve in curves))
    # A curve that ended before `left` has its last loss there.
    shown = pd.concat([part for curve in curves for part in (curve.smooth.loc[left:], curve.smooth.tail(1))])
    low, high = np.nanmin(shown.to_numpy()), np.nanmax(shown.to_numpy())
    axes.set(xlim=(left, right), ylim=(low - 0.04 * (high - low), high + 0.02 * (high - low)))
    deltas = np.concatenate([curve.delta.loc[left:].to_numpy().ravel() for curve in curves])
    low, high = np.nanmin([-_CLOSE, *deltas]), np.nanmax([2 * _CLOSE, *deltas])
    beneath.set_yscale("symlog", linthresh=_CLOSE, linscale=0.7)
    beneath.set_ylim(1.2 * low, 1.2 * high)
    ticks = [sign * step * _CLOSE for step in (1, 10, 100) for sign in (-1, 1)]
    style.set_ticks(beneath.yaxis, [0, *(tick for tick in ticks if low <= tick <= high)])


def _draw_delta(axes: Axes, curve: Curve, offset: float) -> None:
    """The mean difference over seeds; standard itself is the line at zero."""
    if curve.variant == "standard":
        axes.axhline(0, **style.STANDARD_LINE)
        return
    at = _evenly(axes, curve.delta)
    mean = curve.delta.iloc[at].mean(axis=1)
    axes.plot(mean, zorder=3, **style.line(curve.variant, curve.hybrid))
    every = max(1, len(mean) // 5)
    axes.plot(mean, zorder=4, markevery=(int(every * offset), every), **style.dot(curve.variant, curve.hybrid, 3.2))


def _evenly(axes: Axes, losses: pd.DataFrame) -> np.ndarray:
    """Rows that lie evenly along the axis as it is drawn."""
    space = np.geomspace if axes.get_xscale() == "log" else np.linspace
    if losses.empty:
        return np.array([], dtype=int)
    return np.unique(losses.index.searchsorted(space(*axes.get_xlim(), _POINTS)).clip(max=len(losses) - 1))


def _draw(axes: Axes, curve: Curve, offset: float) -> None:
    look = style.line(curve.variant, curve.hybrid)
    at = _evenly(axes, curve.raw)
    raw, smooth = curve.raw.iloc[at], curve.smooth.iloc[at]
    mean = smooth.mean(axis=1)
    if raw.shape[1] > 1:
        axes.fill_between(
            mean.index, smooth.min(axis=1), smooth.max(axis=1), color=look["color"], alpha=0.18, linewidth=0
        )
    else:
        axes.plot(raw, color=look["color"], alpha=0.16, linewidth=0.4, zorder=1)
    axes.plot(mean, zorder=3, **look)
    # Markers stand at other places on each curve, so that curves that lie on each other can be told apart.
    every = (0.2 * (offset + 0.1), 0.2)
    axes.plot(mean, zorder=4, markevery=every, **style.dot(curve.variant, curve.hybrid, 3.2))
    if curve.diverged:
        axes.plot(mean.tail(1), "x", color=look["color"], markersize=8, markeredgewidth=1.8, zorder=6)


def _label(axes: Axes, curves: Sequence[Curve], names: bool) -> None:
    """The final loss of every curve beside its end, with the variant's name where no legend says it."""
    bottom, top = axes.get_ylim()
    ends = [curve.smooth.iloc[-1].mean() if curve.diverged else curve.final for curve in curves]
    lowest_first = sorted(zip(ends, curves, strict=True), key=lambda pair: pair[0])
    heights = np.array([(end - bottom) / (top - bottom) for end, _ in lowest_first])
    # Labels move apart, each as near its place as its neighbours allow.
    steps = min(_LABEL, 0.96 / max(1, len(curves) - 1)) * np.arange(len(curves))
    places = np.clip(isotonic_regression(heights - steps).x, 0.02, 0.98 - steps[-1]) + steps
    beside = offset_copy(axes.transAxes, axes.get_figure(root=True), x=13, y=0, units="points")
    for (_, curve), height, place in zip(lowest_first, heights, places, strict=True):
        words = "diverged" if curve.diverged else f"{curve.final:.2f}"
        axes.annotate(
            f"{curve.variant} {words}" if names else words, (1, height), (18, place), xycoords="axes fraction",
            textcoords=("offset points", "axes fraction"), va="center_baseline", fontsize=style.SMALL,
            annotation_clip=False, arrowprops={
                "arrowstyle": "-", "color": colour(curve.variant), "linewidth": 0.5, "shrinkA": 9, "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip
        axes.plot(
            1, place, transform=beside, clip_on=False, in_layout=False, **style.dot(curve.variant, curve.hybrid, 3.4)
        )
