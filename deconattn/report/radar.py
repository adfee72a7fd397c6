"""Radar charts of attention indicators: one panel a model, one outline a layer, the layer as lightness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from deconattn.report import style
from deconattn.report.attention import INDICATORS, Scale

LABELS: dict[str, str] = {
    "entropy": "entropy",
    "concentration": "concen-\ntration",
    "head_diversity": "head\ndiversity",
    "local_focus_0": "local 0\n(×2)",
    "local_focus_1": "local 1 (×2)",
    "local_focus_2": "local 2\n(×2)",
    "local_focus_3": "local 3\n(×2)",
    "sink": "sink",
}
_ANGLES = np.pi / 2 - 2 * np.pi * np.arange(len(INDICATORS)) / len(INDICATORS)
_SPOKES = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
REFERENCE: dict[str, Any] = {"color": "black", "linestyle": (0, (0.8, 1.4)), "linewidth": 1.2}
"""Keywords of `Axes.plot` for the outline of the standard model."""
_LABEL_ROOM = (0.5, 0.17)
"""Inches that the labels take beside, and above and below, the outermost ring."""
_TITLE_LINE = 0.14
"""Inches above a chart's labels that a line of its title takes."""
_MARKED_UP_TO = 8
"""Outlines in one chart up to which every value has a marker; more would hide each other."""


@dataclass(frozen=True)
class Panel:
    """The layers of one model that are drawn into one chart: values a row a layer (index, from 1)."""

    title: str
    variant: str
    hybrid: bool
    values: pd.DataFrame | None
    absent: str = ""


def layer_colours(layers: int) -> list[tuple[float, float, float, float]]:
    """A colour for each layer, the first lightest; every one has a contrast of 3 : 1 or more against white."""
    shades = np.linspace(0.66, 0.08, layers) if layers > 1 else np.array([0.3])
    return [tuple(colour) for colour in matplotlib.colormaps["magma"](shades).tolist()]


def reach(shown: Sequence[pd.DataFrame], scale: Scale) -> float:
    """Radius of the outermost ring of a figure: 1, or more, in quarters, where an absolute indicator is beyond it."""
    largest = [float(scale.place(values).to_numpy().max()) for values in shown]
    return max([1.0, *(float(np.ceil(round(4 * value, 6))) / 4 for value in largest)])


def draw_panel(
    axes: Axes, panel: Panel, scale: Scale, layers: int, limit: float, reference: pd.DataFrame | None = None
) -> None:
    """One chart into axes of `chart_height`: rings, spokes, an outline a layer, `reference` as a dotted outline."""
    inch = _frame(axes, limit)
    over = limit + (_LABEL_ROOM[1] + 0.05) * inch
    axes.text(0, over, panel.title, ha="center", va="baseline", linespacing=1.1)  # the last line's baseline
    if panel.values is None or panel.values.empty:
        axes.text(0, 0, style.wrap(panel.absent, 1.3), ha="center", va="center", color=style.GREY, fontsize=style.SMALL)
        return
    _web(axes, limit)
    colours = layer_colours(layers)
    few = len(panel.values) <= _MARKED_UP_TO
    look = {"linestyle": style.line(panel.variant, panel.hybrid)["linestyle"], "linewidth": 0.9 if few else 0.7}
    dots = style.dot(panel.variant, panel.hybrid, 2.8) if few else {}
    for layer, row in scale.place(panel.values).iterrows():
        shade = colours[int(layer) - 1]  # type: ignore[call-overload]
        points = _outline(row)
        axes.plot(points[:, 0], points[:, 1], zorder=3, **{"color": shade, **look})
        if few:
            own = {"markeredgecolor": shade, "markerfacecolor": "white" if panel.hybrid else shade, "color": shade}
            axes.plot(points[:-1, 0], points[:-1, 1], zorder=4, **{**dots, **own, "markeredgewidth": 0.7})
    if reference is not None:
        points = _outline(scale.place(reference).iloc[0])
        halo = [Stroke(linewidth=2.4, foreground="white"), Normal()]
        axes.plot(points[:, 0], points[:, 1], zorder=5, path_effects=halo, **REFERENCE)


def chart_height(width: float, panels: Sequence[Panel]) -> float:
    """Height in inches of charts that are `width` wide, labels and the longest title included."""
    radius = (width - 2 * _LABEL_ROOM[0]) / 2
    return 2 * (radius + _LABEL_ROOM[1]) + _TITLE_LINE * max(panel.title.count("\n") + 1 for panel in panels)


def layer_bar(figure: Figure, box: tuple[float, float, float, float], layers: int) -> None:
    """A small bar that says which lightness is which layer; `box` in inches from the lower left."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.pcolormesh(
        np.arange(layers + 1) + 0.5, [0, 1], np.arange(1, layers + 1)[None, :],
        cmap=ListedColormap(layer_colours(layers)), norm=Normalize(1, max(2, layers)), rasterized=False,
    )  # fmt: skip
    axes.set_yticks([])
    step = next(s for s in (1, 2, 3, 4, 6, 8, 12) if layers / s <= 8 or s == 12)
    axes.set_xticks(sorted({1, layers, *range(step, layers + 1, step)} - ({layers - 1} if step > 2 else set())))
    axes.tick_params(axis="x", length=2, pad=1, labelsize=style.SMALL)
    axes.set_title("layer", fontsize=style.SMALL, pad=2, color=style.GREY)


def _outline(row: pd.Series) -> np.ndarray:
    """The closed outline of one layer: (spokes + 1, 2)."""
    radii = row[list(INDICATORS)].to_numpy(dtype=float)
    points = radii[:, None] * _SPOKES
    return np.vstack([points, points[:1]])


def _frame(axes: Axes, limit: float) -> float:
    """Limits with room for labels and title around a web of radius `limit`; returns an inch in data units."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    width = axes.get_position().width * figure.get_figwidth()
    height = axes.get_position().height * figure.get_figheight()
    inch = limit / (width / 2 - _LABEL_ROOM[0])
    axes.set_xlim(-width / 2 * inch, width / 2 * inch)
    bottom = -limit - _LABEL_ROOM[1] * inch
    axes.set_ylim(bottom, bottom + height * inch)
    axes.set_aspect("equal")
    axes.axis("off")
    return inch


def _web(axes: Axes, limit: float) -> None:
    closed = np.vstack([_SPOKES, _SPOKES[:1]])
    for ring in np.arange(0.25, limit + 0.01, 0.25):
        shade, line = ("#b0b0b0", 0.7) if ring == 1 else ("#e0e0e0", 0.4)
        axes.plot(ring * closed[:, 0], ring * closed[:, 1], color=shade, linewidth=line, zorder=1)
    for spoke in _SPOKES:
        axes.plot([0, limit * spoke[0]], [0, limit * spoke[1]], color="#e4e4e4", linewidth=0.4, zorder=1)
    between = (_SPOKES[4] + _SPOKES[5]) / 2
    for ring in (0.5, 1.0):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}
        x, y = ring * between
        axes.text(x, y, f"{ring:g}", fontsize=5.5, color=style.GREY, ha="center", va="center", bbox=box, zorder=2)
    for name, (x, y) in zip(INDICATORS, _SPOKES, strict=True):
        across = "center" if abs(x) < 0.1 else "left" if x > 0 else "right"
        along = "center" if abs(y) < 0.1 else "bottom" if y > 0 else "top"
        axes.text(1.06 * limit * x, 1.06 * limit * y, LABELS[name], fontsize=6, ha=across, va=along, linespacing=0.95)
