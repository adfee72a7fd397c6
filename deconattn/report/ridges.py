"""Figures 2 and 6: distribution of a variant's scores before the softmax, a ridge a layer, uniform beside hybrid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import AsinhLocator

from deconattn.analysis.histogram import LARGE
from deconattn.analysis.schema import SCORES
from deconattn.exhibits import BOTH
from deconattn.report import style
from deconattn.report.draw import Drawing
from deconattn.report.names import colour, layout_label
from deconattn.report.notes import analysis_gaps, gap_line, without_map
from deconattn.report.results import Results

_STEPS = 200  # of the axis, for each of which a ridge has one height
_HEIGHT = 0.88  # of a ridge, in distances between layers
_BODY: dict[str, Any] = {"linewidth": 1.8, "solid_capstyle": "butt"}
_REACH: dict[str, Any] = {"linewidth": 0.6, "marker": "|", "markersize": 4}


def figure2(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 2 for `options["model"]`: rndembqk; a missing run is named at the foot."""
    words = (
        "In a replaced layer the scores are those of the side stream, the same for every input; in a standard layer, those "
        "of held-out text."
    )
    return _draw(results, options["model"], "rndembqk", words)


def figure6(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 6 for `options["model"]`: nonapproximate; a missing run is named at the foot."""
    words = "A replaced layer has one score a key, a standard layer one a query and key."
    return _draw(results, options["model"], "nonapproximate", words)


def _draw(results: Results, model: str, variant: str, of_what: str) -> Drawing:
    """The figure of `variant`; `of_what` says what the scores of its layers are."""
    rows = results.read("scores", SCORES)
    rows = rows[(rows["model"] == model) & (rows["variant"] == variant) & rows["layout"].isin(BOTH)]
    wanted = [(variant, layout) for layout in BOTH]
    gaps = analysis_gaps(results, model, wanted)
    notes = [without_map(results, model, wanted, [(variant, at) for at in rows["layout"].unique()]), gap_line(gaps)]
    title = f"{results.heading(model)}: {variant}"
    if rows.empty:
        return Drawing(style.blank(title, notes), [], gaps)
    linear = linear_width(rows)
    low, high = rows["minimum"].min(), rows["maximum"].max()
    steps = np.linspace(np.arcsinh(low / linear), np.arcsinh(high / linear), _STEPS + 1)
    large = min(low, -high) < -LARGE
    explanation = (
        f"Every ridge is as high as its peak. The axis is linear up to about ±{linear:g} and logarithmic beyond (asinh). "
        + of_what
        + (" Dashed: ±10³, beside it the share of scores beyond, if any." if large else "")
        + (" Seeds are pooled." if rows.groupby("layout")["run"].nunique().max() > 1 else "")
    )
    layers = int(rows["layer"].max())
    inches = 0.95 + min(0.42, max(0.18, 4.4 / layers)) * (layers + 0.3)
    figure = style.sheet(style.DOUBLE_COLUMN, inches, [explanation, *notes])
    entries = {
        f"{variant} layer": {**_square(variant), "markerfacecolor": (colour(variant), 0.75)},
        "standard layer": {**_square("standard"), "markerfacecolor": "#d9d9d9"},
        "median (open: hybrid)": style.dot(variant, False, 3.4),
        "1st to 99th percentile": {"color": style.GREY, **_BODY},
        "least to greatest": {"color": style.GREY, **_REACH},
    }
    style.legend(figure, entries, title)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    panels[0].set_xscale("asinh", linear_width=linear)
    panels[0].xaxis.set_major_locator(AsinhLocator(linear, numticks=9, base=0))
    panels[0].xaxis.set_major_formatter(_tick)
    panels[0].set_xticks([], minor=True)
    for axes, layout in zip(panels, BOTH, strict=True):
        axes.grid(True, axis="x")
        axes.set(ylim=(0.7, layers + 1), yticks=range(1, layers + 1), xlabel="score before the softmax")
        axes.tick_params(axis="y", length=0, labelsize=style.SMALL)
        axes.spines["left"].set_visible(False)
        for at in [at for at in (-LARGE, LARGE) if low < at < high]:
            axes.axvline(at, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        half, title = rows[rows["layout"] == layout], layout_label(layout).capitalize()
        if half.empty:
            style.empty(axes, "nothing to draw")
        else:
            top = half.sort_values("maximum").iloc[-1]
            title += f": at most {_number(top['maximum'])}, in layer {top['layer']}"
        axes.set_title(title, color=style.GREY)
        for layer, own in half.groupby("layer"):
            _ridge(axes, int(str(layer)), own, linear * np.sinh(steps), density(own, steps, linear))
    panels[0].set_ylabel("layer")
    return Drawing(figure, sorted(rows["run"].unique()), gaps)


def linear_width(rows: pd.DataFrame) -> float:
    """Up to where the axis is linear: a round number beyond the middle half of every layer's scores.

    A narrower linear part would show one hump as two, left and right of zero.
    """
    wanted = max(2 * float(rows[["p25", "p75"]].abs().max().max()), 1e-6)
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= wanted))


def density(rows: pd.DataFrame, steps: np.ndarray, linear: float) -> np.ndarray:
    """Heights, 1 at most, of a layer's scores between `steps`, places on the axis asinh(score / linear); seeds are pooled.

    The scores of a bin are taken to lie evenly along it.
    """
    bins = rows.groupby(["bin_low", "bin_high"], as_index=False)["count"].sum()
    # The outermost bins end where the scores do.
    bounds = bins[["bin_low", "bin_high"]].clip(rows["minimum"].min(), rows["maximum"].max())
    reached = np.repeat(np.append(0, bins["count"].cumsum()), 2)[1:-1]
    heights = np.diff(np.interp(steps, np.arcsinh(bounds.to_numpy().ravel() / linear), reached))
    return heights / heights.max()


def _ridge(axes: Axes, base: int, rows: pd.DataFrame, edges: np.ndarray, heights: np.ndarray) -> None:
    """One layer; of several seeds the extremes are the outermost, the quantiles the means of theirs."""
    seeds = rows.drop_duplicates("run")
    first = seeds.iloc[0]
    variant = "standard" if first["standard"] else first["variant"]
    shade = colour(variant)
    fill: dict[str, Any] = {"color": "#d9d9d9" if first["standard"] else shade, "alpha": 0.75}
    held = np.flatnonzero(heights)
    own = slice(held[0], held[-1] + 1)
    outline = base + _HEIGHT * heights[own], edges[own.start : own.stop + 1]
    axes.stairs(*outline, baseline=base, fill=True, linewidth=0, zorder=2, **fill)
    axes.stairs(*outline, baseline=base, color=shade, linewidth=0.5, zorder=2)
    axes.plot([seeds["minimum"].min(), seeds["maximum"].max()], [base, base], color=shade, zorder=3, **_REACH)
    axes.plot(seeds[["p1", "p99"]].mean(), [base, base], color=shade, zorder=3, **_BODY)
    axes.plot(seeds["p50"].mean(), base, zorder=4, **style.dot(variant, first["layout"] != "uniform", 3.4))
    if beyond := (seeds["share_beyond_1000"] * seeds["total"]).sum() / seeds["total"].sum():
        share = "<0.01 %" if beyond < 1e-4 else f"{100 * beyond:.2g} %"
        side, align = (1, "left") if seeds["maximum"].max() > 1000 else (-1, "right")
        axes.text(1100 * side, base + 0.1, share, fontsize=style.SMALL, va="bottom", ha=align)


def _square(variant: str) -> dict[str, Any]:
    return {"color": colour(variant), "marker": "s", "markersize": 6, "markeredgewidth": 0.5, "linestyle": "none"}


def _tick(value: float, _: int) -> str:
    """A number, from 1,000 on with a power of ten: 2·10⁴."""
    if abs(value) < 1000:
        return f"{value:g}".replace("-", "−")
    return _power(value, 0).replace("1·", "")


def _number(value: float) -> str:
    """Three digits of a number: 12.3, 1.23·10⁴."""
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else _power(value, 2)


def _power(value: float, digits: int) -> str:
    factor, power = f"{value:.{digits}e}".replace("-", "−").split("e+")
    return f"{factor}·10{power.lstrip('0').translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
