"""A figure of radar charts: where the charts, the key to the layers and the explanations stand."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deconattn.report import radar, style
from deconattn.report.attention import Scale
from deconattn.report.names import count_label
from deconattn.report.radar import Panel
from deconattn.report.results import Results

_HEAD, _GAP = 0.56, 0.1


def sheet(
    results: Results,
    model: str,
    lines: Sequence[Sequence[Panel]],
    notes: Sequence[str],
    reference: pd.DataFrame | None = None,
) -> Figure:
    """Charts in lines, all on one scale; `reference`, one row of indicators, is a dotted outline in each.

    The scale is that of what is in `lines` and `reference`, and of nothing else. `notes` follow the explanation at
    the foot.
    """
    panels = [panel for line in lines for panel in line]
    values = [panel.values for panel in panels if panel.values is not None and not panel.values.empty]
    width = style.DOUBLE_COLUMN
    if not values:
        return _empty(results, model, notes, width)
    shown = values if reference is None else [*values, reference]
    scale = Scale(shown)
    limit = radar.reach(shown, scale)
    text = [_explanation(scale, limit, results.seeds(model)), *notes]
    columns = max(len(line) for line in lines)
    wide = min(style.DOUBLE_COLUMN / 3, width / columns)
    high = radar.chart_height(wide, panels)
    height = _HEAD + len(lines) * (high + _GAP) + style.footer(Figure(figsize=(width, 1)), text, width)
    figure = Figure(figsize=(width, height))
    style.footer(figure, text, width)
    layers = max(int(frame.index.max()) for frame in values)
    _head(figure, results, model, layers, reference is not None)
    for row, line in enumerate(lines):
        bottom = height - _HEAD - row * (high + _GAP) - high
        for column, panel in enumerate(line):
            left = (column + 0.5) * width / columns - wide / 2
            axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
            radar.draw_panel(axes, panel, scale, layers, limit, reference)
    return figure


def _head(figure: Figure, results: Results, model: str, layers: int, reference: bool) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.05 / width, 1 - 0.06 / height, _heading(results, model), va="top", fontweight="bold")
    radar.layer_bar(figure, (width - 1.55, height - 0.26, 1.45, 0.09), layers)
    if reference:
        handle = Line2D([], [], label="standard, mean of its layers", **radar.REFERENCE)
        figure.legend(
            handles=[handle], loc="upper right", bbox_to_anchor=(1 - 1.8 / width, 1 - 0.02 / height), handlelength=2.2
        )


def _heading(results: Results, model: str) -> str:
    parameters = results.parameters(model)
    return model if parameters is None else f"{model}, {count_label(parameters)} parameters"


def _explanation(scale: Scale, limit: float, seeds: int) -> str:
    over = "heads" if seeds == 1 else f"heads and {seeds} seeds"
    return (
        f"Means over {over}. Entropy, concentration and head diversity lie between the least (centre) and the greatest "
        f"(ring 1) of this figure: {scale.note()}. Sink, the weight on the first token, and local focus, the weight on "
        f"the token 0 to 3 positions back (drawn ×2), are absolute; the outermost ring is {limit:g}."
    )


def _empty(results: Results, model: str, notes: Sequence[str], width: float) -> Figure:
    height = 1.2 + style.footer(Figure(figsize=(width, 1)), notes, width)
    figure = Figure(figsize=(width, height))
    style.footer(figure, notes, width)
    figure.text(0.05 / width, 1 - 0.06 / height, _heading(results, model), va="top", fontweight="bold")
    figure.text(0.5, 0.6, "nothing to draw", ha="center", color=style.GREY)
    return figure
