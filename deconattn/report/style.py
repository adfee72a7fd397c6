"""How every figure looks and is saved: sizes in print, text as text, and equal input giving equal bytes.

Uniform models have solid lines and filled markers, hybrids dashed lines and open markers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from deconattn.files import atomic_write
from deconattn.report.palette import colour, marker

SINGLE_COLUMN = 3.4
DOUBLE_COLUMN = 7.0
"""Widths in inches at which a figure is printed without scaling, so that its points are points."""
SMALL, NORMAL = 6.5, 7.5
FORMATS = ("svg", "pdf", "png")
GREY = "#5c5c5c"
_RC: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
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
    "path.simplify": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """The settings of all figures, whatever the caller's own are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _RC.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `.pdf` and `.png`; no date goes in, so the same figure is the same bytes."""
    undated: dict[str, dict[str, Any]] = {
        "svg": {"Date": None},
        "pdf": {"CreationDate": None, "ModDate": None},
        "png": {},
    }
    paths = []
    for kind in FORMATS:
        path = Path(folder) / f"{name}.{kind}"
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=undated[kind])
        paths.append(path)
    return paths


def dot(variant: str, hybrid: bool, size: float = 4.5) -> dict[str, Any]:
    """Keywords of `Axes.plot` for one value of a variant: filled if uniform, open if hybrid."""
    shade = colour(variant)
    # Thin arms of a filled cross and plus are enlarged to weigh as much as a disc.
    scale = 1.2 if marker(variant) in "XP" else 0.9 if marker(variant) in "Ds" else 1.0
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


def variant_legend(figure: Figure, variants: Sequence[str]) -> None:
    """One line at the top of a wide figure: the marker and the name of every variant."""
    handles = [Line2D([], [], label=variant, **dot(variant, False, 4)) for variant in variants]
    figure.legend(
        handles=handles, loc="upper center", ncols=len(handles), handletextpad=0.1, columnspacing=1.0,
        borderaxespad=0.3, handlelength=1.4,
    )  # fmt: skip


def spread_out(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart to at least `gap`, within [low, high], each as near its place as its neighbours allow.

    Order is kept; where there is no room for all, they are spaced evenly over the whole range.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    if not order:
        return []
    if gap * (len(order) - 1) >= high - low:
        step = (high - low) / max(1, len(order) - 1)
        placed = [low + step * k for k in range(len(order))]
    else:
        placed = _isotonic([positions[index] - gap * k for k, index in enumerate(order)])
        placed = [min(max(p, low), high - gap * (len(order) - 1)) + gap * k for k, p in enumerate(placed)]
    result = [0.0] * len(positions)
    for index, place in zip(order, placed, strict=True):
        result[index] = place
    return result


def _isotonic(values: list[float]) -> list[float]:
    """Least-squares non-decreasing fit by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count),
                blocks[-1][1] + count,
            ]
    return [mean for mean, count in blocks for _ in range(int(count))]


def wrap(text: str, width_inches: float, size: float = SMALL) -> str:
    """Break a text at its spaces into lines that fit a width, measured in the font that they are drawn with."""
    font = FontProperties(family=_RC["font.sans-serif"], size=size)

    def length(words: str) -> float:
        # In pixels letters are rounded up to whole ones: a few per cent more than in print.
        return 1.04 * text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] / 72

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer) > width_inches:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def gap_line(gaps: Sequence[str], most: int = 6) -> str:
    """The line under a figure that says what is not in it; empty when nothing is missing."""
    if not gaps:
        return ""
    more = f"; and {len(gaps) - most} more (all are in the figure's JSON)" if len(gaps) > most else ""
    return "Gaps: " + "; ".join(gaps[:most]) + more + "."


def footer(figure: Figure, texts: Sequence[str], width: float) -> float:
    """Write lines at the foot of a figure; returns the height that they take, in inches."""
    wrapped = "\n".join(wrap(text, width - 0.1) for text in texts if text)
    if not wrapped:
        return 0.0
    height = (wrapped.count("\n") + 1) * SMALL * 1.25 / 72 + 0.06
    figure.text(
        0.05 / width, 0.03 / figure.get_figheight(), wrapped, fontsize=SMALL, color=GREY, va="bottom", linespacing=1.25
    )
    return height


def quiet(axes: Axes, grid: str = "x") -> None:
    """Grid lines along one axis only, and no tick marks on the other."""
    axes.grid(True, axis="x" if grid == "x" else "y")
    axes.tick_params(axis="y" if grid == "x" else "x", length=0)
