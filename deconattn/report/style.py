"""How every figure looks and is saved: sizes in print, text as text, and equal input giving equal bytes.

Uniform models have solid lines and filled markers, hybrids dashed lines and open markers.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from deconattn.files import atomic_write
from deconattn.report.names import colour, marker

SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
"""Widths in inches at which a figure is printed without scaling, so that its points are points."""
SMALL, NORMAL = 6.5, 7.5
GREY = "#5c5c5c"
STANDARD_LINE: dict[str, Any] = {"color": colour("standard"), "linewidth": 0.9, "linestyle": ":"}
_RC: dict[str, Any] = {
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titlepad": 4,
    "axes.titlelocation": "left",
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": NORMAL,
    "legend.fontsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "grid.linewidth": 0.4,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.1,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "deconattn",
    "pdf.fonttype": 42,
}


@contextmanager
def styled() -> Iterator[None]:
    """The settings of all figures, whatever the caller's own are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)  # type: ignore[arg-type]
        yield


def sheet(width: float, height: float, foot: Sequence[str]) -> Figure:
    """A figure with constrained layout, `height` inches above the lines at its foot."""
    # A letter of the font is about 0.56 of its size wide.
    text = "\n".join(textwrap.fill(line, int((width - 0.1) * 72 / (0.56 * SMALL))) for line in foot if line)
    below = (text.count("\n") + 1) * SMALL * 1.25 / 72 + 0.06 if text else 0.0
    whole = height + below
    figure = Figure(figsize=(width, whole), layout="constrained")
    figure.get_layout_engine().set(rect=(0, below / whole, 1, height / whole), w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr,call-arg]
    figure.text(0.05 / width, 0.03 / whole, text, fontsize=SMALL, color=GREY, va="bottom", linespacing=1.25)
    return figure


def blank(heading: str, foot: Sequence[str]) -> Figure:
    """A figure that has nothing to show but its foot."""
    figure = sheet(DOUBLE_COLUMN, 1.0, foot)
    title(figure, heading)
    axes = figure.subplots()
    axes.set_axis_off()
    empty(axes, "nothing to draw")
    return figure


def title(figure: FigureBase, text: str) -> None:
    """A heading in bold at the upper left."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=NORMAL, fontweight="bold")


def save(figure: Figure, folder: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    """Write the figure in each format; no date goes in, so the same figure is the same bytes."""
    # The last digits of the layout's solver differ from time to time: lay out once, at rounded places.
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 6))
    for axes in figure.axes:
        axes.set_position(tuple(np.round(axes.get_position(original=True).bounds, 6)))
    undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}}
    paths = [Path(folder) / f"{name}.{kind}" for kind in kinds]
    for path, kind in zip(paths, kinds, strict=True):
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=undated.get(kind))
    return paths


def dot(variant: str, hybrid: bool, size: float = 4.2) -> dict[str, Any]:
    """Keywords of `Axes.plot` for one value of a variant: filled if uniform, open if hybrid."""
    shade = colour(variant)
    # Thin arms of a filled cross and plus are enlarged to weigh as much as a disc.
    scale = {"X": 1.2, "P": 1.2, "D": 0.9, "s": 0.9}.get(marker(variant), 1.0)
    return {
        "marker": marker(variant),
        "markersize": size * scale,
        "markeredgewidth": 1.0,
        "markeredgecolor": shade,
        "markerfacecolor": "white" if hybrid else shade,
        "color": shade,
        "linestyle": "none",
    }


def line(variant: str, hybrid: bool) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a curve of a variant: solid if uniform, dashed if hybrid."""
    return {"color": colour(variant), "linestyle": (0, (4, 1.6)) if hybrid else "-"}


def dots(variants: Sequence[str], hybrid: bool = False) -> dict[str, dict[str, Any]]:
    """Entries of a legend: the name of every variant and its marker."""
    return {variant: dot(variant, hybrid, 4) for variant in variants}


def legend(figure: Figure, entries: Mapping[str, Mapping[str, Any]], title: str = "", columns: int = 0) -> None:
    """A legend above all panels: label → keywords of `Line2D`; its title in bold at the left."""
    figure.legend(
        handles=[Line2D([], [], label=label, **look) for label, look in entries.items()],
        loc="outside upper left", ncols=columns or len(entries), title=title or None, alignment="left",
        title_fontproperties={"weight": "bold", "size": NORMAL}, handletextpad=0.4, columnspacing=1.1,
        borderaxespad=0.2, handlelength=1.6, borderpad=0.1,
    )  # fmt: skip


def empty(axes: Axes, words: str) -> None:
    """Say in a panel why nothing is in it."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=GREY)


def set_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Numbers at these places alone."""
    axis.set_ticks(ticks, [f"{tick:,g}".replace("-", "−") for tick in ticks])
    axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Two to `most` round numbers on a logarithmic axis, as many as there are; even steps where decades are too coarse."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = np.outer(decades, parts).ravel()
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        if 2 <= len(ticks) <= most:
            return ticks.tolist()
    return [float(tick) for tick in MaxNLocator(max(1, most - 1)).tick_values(low, high) if low <= tick <= high]
