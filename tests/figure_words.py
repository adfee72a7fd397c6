"""What a figure shows: its words, of which none leaves it and none lies on another, and its markers."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from deconattn.report.names import MARKERS


def assert_words_apart(figure: Figure) -> None:
    """Fail with the texts that overlap or leave `figure`; called within `style.styled()`."""
    figure.set_dpi(200)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = beyond(figure)
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]
    # Of the words alone, without the line that joins a label to its curve.
    boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts]
    assert len(boxes) > 10
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        inside = box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5
        assert inside, f"{text!r} leaves the figure: {box}"
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes hold room for accents and tails: what touches by less than three pixels of 200 an inch is apart.
        assert across < 2 or down < 3, f"{first!r} overlaps {second!r} by {across:.1f} × {down:.1f} pixels"


def words(figure: Figure) -> str:
    """Everything that is written on a figure, in one line."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text().strip())


def beyond(figure: Figure) -> set[int]:
    """Labels of ticks outside the range of their axis: matplotlib keeps them and does not draw them."""
    hidden = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                hidden |= {id(tick.label1), id(tick.label2)}
    return hidden


def style_of(variant: str, layout: str) -> tuple[str, bool]:
    """What tells one dot from another: the variant's marker, and whether it is open."""
    return MARKERS[variant], layout != "uniform"


def dots_of(axes: Any) -> list[tuple[tuple[str, bool], float]]:
    """The single markers of a panel: how they look and where they stand."""
    dots = []
    for line in axes.lines:
        # A marker beside a word stands at the edge of its panel, not at a value.
        if line.get_marker() not in ("None", None, "") and line.get_transform() == axes.transData:
            dots.append(((line.get_marker(), line.get_markerfacecolor() == "white"), float(line.get_xdata()[0])))
    return sorted(dots)
