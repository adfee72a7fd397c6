"""`figure_lengths`: how well a text is predicted against the context length, up to lengths beyond that of training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from deconattn.exhibits import BOTH
from deconattn.report import lengths, style
from deconattn.report.draw import Drawing
from deconattn.report.names import HELDOUT, WIKITEXT, Column, colour, layout_label
from deconattn.report.notes import gap_line, run_gaps
from deconattn.report.results import Results

WIDEST = {"word_perplexity": 40.0, "bits_per_byte": 3.0}
"""Metric → times the lowest value, as far as a panel reaches; a line that leaves it is named at the foot."""
_TRAINED: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": "-."}


def figure_lengths(results: Results, options: dict[str, Any]) -> Drawing:
    """`figure_lengths` for `options["model"]` on `options["task"]`; missing values are named at the foot."""
    model = options["model"]
    text = HELDOUT if options["task"] == HELDOUT.task else WIKITEXT
    points, trained = lengths.values(results, model, text), results.shape(model, "context_length")
    gaps = run_gaps(results, [model], results.variants(model), BOTH) + lengths.gaps(results, model, points)
    shown = results.shown([model], BOTH)
    if points["mean"].isna().all():
        gaps.append(f"no model has a value on {text.label}")
        return Drawing(style.blank(results.heading(model), [gap_line(gaps)]), shown, gaps)
    panels = {
        layout: points[(points["layout"] == layout) | (points["variant"] == "standard")].dropna(subset="mean")
        for layout in BOTH
    }
    tops = {layout: WIDEST[text.metric] * own["mean"].min() for layout, own in panels.items()}
    over = "Means over seeds, with their range" if points["seeds"].max() > 1 else "One seed, so no range"
    foot = [
        f"{over}. A text is read in windows of the context length, and each token is scored once. Shaded: longer than in "
        "training; rotary positions go on.",
        _above(panels, tops),
        gap_line(gaps),
    ]
    figure = style.sheet(style.DOUBLE_COLUMN, 2.9, foot)
    again = points.loc[points["mode"] == "reweighted", "variant"].unique()
    entries = style.dots(results.variants(model))
    entries |= {f"{variant}, re-weighted": _dot(variant, "reweighted", False) for variant in again}
    entries |= {"length in training": _TRAINED}
    style.legend(figure, entries, f"{results.heading(model)}, {results.seeds_label(model)}", min(len(entries), 6))
    ticks = sorted(points["context_length"].unique())
    ends = ticks[0] / 1.15, ticks[-1] * 1.15
    for axes, (layout, own) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.set_title(layout_label(layout).capitalize(), color=style.GREY)
        axes.set_xlabel("context length, tokens", labelpad=1.5)
        axes.grid(True, axis="y")
        axes.set_xscale("log", base=2)
        axes.set_xlim(*ends)
        axes.set_xticks([], minor=True)
        style.set_ticks(axes.xaxis, ticks)
        if own.empty:
            style.empty(axes, "not evaluated")
            continue
        for (variant, at, mode), line in own.groupby(lengths.PLACE, sort=False):
            _draw(axes, line, str(variant), str(mode), at != "uniform")
        _limit(axes, own["low"].min(), min(own["high"].max(), tops[layout]), text)
        if trained:
            axes.axvline(trained, zorder=1, **_TRAINED)
            axes.axvspan(trained, max(trained, ends[1]), color="#f3f3f0", zorder=0, linewidth=0)
    figure.axes[0].set_ylabel(f"{text.label}, {text.quantity}")
    return Drawing(figure, shown, gaps)


def _above(panels: dict[str, pd.DataFrame], tops: dict[str, float]) -> str:
    """The models whose values are above their panel, with the largest."""
    rows = pd.concat([own[own["mean"] > tops[layout]] for layout, own in panels.items()])
    largest = rows.groupby(lengths.PLACE, sort=False)["mean"].max()
    names = [
        f"{lengths.label(*place)} (up to {value:,.4g})" for place, value in zip(largest.index, largest, strict=True)
    ]
    return f"Above the panel: {', '.join(names)}." if names else ""


def _dot(variant: str, mode: str, hybrid: bool) -> dict[str, Any]:
    """The marker of a variant; half filled where its weights are re-weighted."""
    look = style.dot(variant, hybrid, 4)
    if mode == "reweighted":
        return look | {
            "fillstyle": "bottom", "markerfacecolor": look["color"], "markerfacecoloralt": "white", "markersize": 5.5,
            "markeredgewidth": 0.7,
        }  # fmt: skip
    return look


def _draw(axes: Axes, line: pd.DataFrame, variant: str, mode: str, hybrid: bool) -> None:
    shade, dotted = colour(variant), {"linestyle": ":"} if mode == "reweighted" else {}
    axes.vlines(line["context_length"], line["low"], line["high"], color=shade, linewidth=0.7, zorder=2)
    axes.plot(line["context_length"], line["mean"], zorder=2, **(style.line(variant, hybrid) | dotted))
    axes.plot(line["context_length"], line["mean"], zorder=3, **_dot(variant, mode, hybrid))


def _limit(axes: Axes, low: float, high: float, text: Column) -> None:
    """The axis of values; perplexities are on a logarithmic one."""
    if not text.is_perplexity:
        room = 0.06 * (high - low) or 0.05 * high
        axes.set_ylim(low - room, high + room)
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.1, high * 1.1)
    axes.set_yticks([], minor=True)
    style.set_ticks(axes.yaxis, style.log_ticks(low / 1.1, high * 1.1))
