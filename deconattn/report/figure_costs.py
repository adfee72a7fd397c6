"""Measured costs of every variant over the length: FLOPs, peak memory, decoding and training time, a row of panels a batch."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from deconattn.report import style
from deconattn.report.cost_results import CostResults
from deconattn.report.drawing import Drawing
from deconattn.report.figure4 import log_ticks

READER = CostResults
OPTIONS: dict[str, str] = {"model": "the model whose mixers are drawn"}
PANELS = {
    "flops": "prefill, MFLOPs a token",
    "peak": "training, peak MB",
    "training_us": "training, µs a token",
    "decode_ms": "decoding, ms a token",
}
_PANEL, _BETWEEN, _LEFT, _RIGHT, _GAP = 1.35, 0.56, 0.42, 0.08, 0.42


def draw(results: CostResults, options: dict[str, Any]) -> Drawing:
    """`figure_costs` for `options["model"]`; sizes that were not measured are left out and named at the foot."""
    model = options["model"]
    rows = results.of(model)
    gaps = results.gaps(model)
    if rows.empty:
        figure = Figure(figsize=(style.DOUBLE_COLUMN, 0.6))
        style.footer(figure, [style.gap_line(gaps)], style.DOUBLE_COLUMN)
        return Drawing(figure, [], gaps)
    foot = [
        f"One layer's mixer, {results.shape(model)}, float32, on {results.hardware(model)}. FLOPs counted by FlopCounterMode; "
        "peak of forward and backward above weights and inputs; medians. A decoding step gives every row of the batch one token.",
        style.gap_line(gaps),
    ]
    return Drawing(_figure(_values(rows), results.variants(model), foot), [], gaps)


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    """The drawn numbers in their units, beside variant, batch and length."""
    tokens = (rows["batch"] * rows["length"]).astype(float)
    return rows[["variant", "batch", "length"]].assign(
        flops=rows["counted_prefill_flops"].astype(float) / tokens / 1e6,
        peak=rows["peak_bytes"].astype(float) / 1e6,
        training_us=rows["training_ms"] * 1e3,
        decode_ms=rows["decode_ms"],
    )


def _figure(values: pd.DataFrame, variants: list[str], foot: list[str]) -> Figure:
    width, head = style.DOUBLE_COLUMN, 0.32
    batches = sorted(values["batch"].unique())
    below = style.footer(Figure(figsize=(width, 4)), foot, width)
    height = head + len(batches) * (_PANEL + _BETWEEN) + 0.08 + below
    figure = Figure(figsize=(width, height))
    style.footer(figure, foot, width)
    style.variant_legend(figure, variants)
    wide = (width - _LEFT - _RIGHT - (len(PANELS) - 1) * _GAP) / len(PANELS)
    for row, batch in enumerate(batches):
        top = height - head - row * (_PANEL + _BETWEEN) - 0.3
        for column, (name, label) in enumerate(PANELS.items()):
            left = _LEFT + column * (wide + _GAP)
            axes = figure.add_axes((left / width, (top - _PANEL) / height, wide / width, _PANEL / height))
            _panel(axes, values, name, int(batch), variants)
            axes.set_title(label, loc="left", fontsize=style.SMALL, pad=3)
            if row + 1 == len(batches):
                axes.set_xlabel("length, tokens", labelpad=1.5)
        figure.text(0.05 / width, (top + 0.16) / height, f"B = {batch}", fontweight="bold", va="bottom")
    return figure


def _panel(axes: Axes, values: pd.DataFrame, name: str, batch: int, variants: list[str]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(True, axis="y")
    lengths = sorted(values["length"].unique())
    axes.xaxis.set_major_locator(FixedLocator([float(n) for n in lengths[:: 1 if len(lengths) <= 4 else 2]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", labelsize=style.SMALL)
    known = values[name].dropna()
    if not known.empty:
        low, high = known[known > 0].min() / 1.3, known.max() * 1.3  # one range for all batches
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    drawn = False
    for variant in variants:
        own = values[(values["variant"] == variant) & (values["batch"] == batch)].sort_values("length")
        own = own.dropna(subset=[name])
        drawn |= not own.empty
        axes.plot(own["length"].astype(float), own[name], **{**style.dot(variant, False, 3), **style.line(variant, False)},
                  linewidth=0.9)  # fmt: skip
    if not drawn:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
