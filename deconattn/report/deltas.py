"""Panels of differences to standard attention, with bounds: on a scale of their own, on which small ones can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deconattn.report import style
from deconattn.report.claims import Condition
from deconattn.report.findings import ERROR
from deconattn.report.scored import Scored
from deconattn.report.statistics import Difference

Place = tuple[str, str]
CLOSE = {"log_perplexity": 0.05, "accuracy": 0.03}
"""What claims.csv calls close to standard attention: shaded; of nats, the part of the axis that is linear."""
LABELS = {"log_perplexity": "Δ to standard, nats a word", "accuracy": "Δ to standard, points"}
_SCALE = {"log_perplexity": 1.0, "accuracy": 100.0}


def differences(scored: Scored, metric: str, places: Iterable[Place]) -> dict[Place, Difference]:
    """(variant, layout) − standard: over seeds where there are several, else over documents or items.

    Bounds hold together over all of them, as those of a family of claims do.
    """
    pairs = {place: (Condition(*place), Condition("standard")) for place in places if place[0] != "standard"}
    pairs = {place: pair for place, pair in pairs.items() if not scored.absent(pair)}
    found = {}
    for place, pair in pairs.items():
        outcome = scored.compare(metric, pair, 1 - 2 * ERROR / len(pairs))
        if not isinstance(outcome, str) and isfinite(outcome[0].value):
            found[place] = outcome[1] if outcome[1].number > 1 else outcome[0]
    return found


def delta_panel(
    axes: Axes,
    metric: str,
    found: Mapping[Place, Difference],
    heights: Mapping[Place, float],
    alike: Iterable[Difference],
) -> None:
    """A dot with its bounds for each difference at its height; the axis holds all of `alike`, those of other rows too."""
    scale, close = _SCALE[metric], CLOSE[metric] * _SCALE[metric]
    axes.axvspan(-close, close, color="#f0f0ec", zorder=0, linewidth=0)
    axes.axvline(0, **style.STANDARD_LINE)
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for place, each in found.items():
        look, height = style.dot(place[0], place[1] != "uniform"), heights[place]
        if each.low is not None and each.high is not None:
            axes.plot([scale * each.low, scale * each.high], [height] * 2, color=look["color"], linewidth=0.9, zorder=2)
        axes.plot(scale * each.value, height, zorder=3, **look)
    ends = [scale * end for each in alike for end in (each.value, each.low, each.high) if end is not None]
    low, high = min([-2 * close, *ends]), max([2 * close, *ends])
    if metric == "accuracy":
        axes.set_xlim(1.1 * low, 1.1 * high)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    else:
        axes.set_xscale("symlog", linthresh=close, linscale=0.7)
        axes.set_xlim(1.4 * low, 1.4 * high)
        steps = (1, 10, 100) if high >= 10 * close else (1, 4)
        least = -10 * close if low < -10 * close else -close  # both would touch
        ticks = [least, 0, *(step * close for step in steps)]
        style.set_ticks(axes.xaxis, [tick for tick in ticks if low <= tick <= high])
    axes.set_xlabel(LABELS[metric], labelpad=1.5)


def delta_entry(found: Iterable[Difference]) -> dict[str, dict[str, Any]]:
    """The entry of a legend that says what the bounds are over; none where there are no bounds."""
    over = list(dict.fromkeys(each.over for each in found if each.low is not None))
    return {f"Δ: bounds over {' or '.join(over)}": {"color": style.GREY, "linewidth": 0.9}} if over else {}


NOTE = (
    "Δ: bounds hold together (one-sided, 5 % / m for the m dots of a panel). Shaded: close to standard; in nats, the axis is "
    "linear there and logarithmic beyond."
)
