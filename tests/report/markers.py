"""The markers of a drawn figure: how they look and where they stand."""

from __future__ import annotations

from typing import Any

from deconattn.report.names import MARKERS


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
