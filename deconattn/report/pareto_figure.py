"""`figure_pareto`: quality against the FLOPs of training and against the state that decoding keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from deconattn.analysis.schema import RUN_COSTS
from deconattn.exhibits import BOTH
from deconattn.report import style
from deconattn.report.draw import Drawing
from deconattn.report.names import AVERAGE, HELDOUT, WIKITEXT, Column, in_order, run_label
from deconattn.report.notes import gap_line, run_gaps, whisker_note
from deconattn.report.results import Results

COSTS = {"training_flops": "training, {}FLOPs", "state_bytes": "decoding state of a sequence of {length:,} tokens, {}B"}
WIDEST = {"word_perplexity": 2.0, "bits_per_byte": 1.3}
"""Metric → times the worst standard model, as far as a panel reaches; what is beyond stands at its edge, and at the foot."""
FRONT: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": "-"}
_PLACE = ["model", "variant", "layout"]
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def figure_pareto(results: Results, options: dict[str, Any]) -> Drawing:
    """`figure_pareto` for `options["models"]`: a row of panels a quantity; a missing run is left out and named at the foot."""
    models = options["models"]
    text = WIKITEXT if any(results.has(model, WIKITEXT) for model in models) else HELDOUT
    columns = [text, *([AVERAGE] if any(results.has(model, AVERAGE) for model in models) else [])]
    points = {column: values(results, models, column) for column in columns}
    variants = in_order(v for model in models for v in results.variants(model))
    gaps = run_gaps(results, models, variants, BOTH) + _lost(results, points, len(models) > 1)
    points = {column: own.dropna(subset="value") for column, own in points.items()}
    foot = [
        "Line: the Pareto front of the means; no model has both less cost and more quality than one on it. FLOPs: forward and "
        "backward of the whole training by formula, pairs j ≤ i alone. State: by formula, 2 bytes a number; a side stream's "
        "queries and keys, which sequences of a batch share, are counted in full.",
        whisker_note([{column: dict(enumerate(own["cell"])) for column, own in points.items()}]),
        _beyond(points[text], text, len(models) > 1),
        gap_line(gaps),
    ]
    figure = style.sheet(style.DOUBLE_COLUMN, 0.6 + 2.3 * len(columns), foot)
    sizes = dict(zip(models, np.linspace(2.8, 5.4, len(models)) if len(models) > 1 else [4.4], strict=True))
    ring: dict[str, Any] = {"color": style.GREY, "marker": "o", "markersize": 4.2, "linestyle": "none"}
    entries = {**style.dots(variants), "uniform": ring, "hybrid (even)": {**ring, "markerfacecolor": "white"}}
    if len(models) > 1:
        entries |= {model: {**ring, "markersize": size} for model, size in sizes.items()}
    heading = (
        f"{results.heading(models[0])}, {results.seeds_label(models[0])}" if len(models) == 1 else ", ".join(models)
    )
    style.legend(figure, {**entries, "Pareto front": FRONT}, heading, 7)
    for row, (column, own) in zip(
        figure.subplots(len(columns), 2, squeeze=False, sharey="row"), points.items(), strict=True
    ):
        _limit(row[0], own, column)
        for axes, (cost, label) in zip(row, COSTS.items(), strict=True):
            axes.grid(True)
            if own.empty:
                style.empty(axes, "nothing evaluated")
                continue
            _panel(axes, own, cost, column, sizes, label)
        row[0].set_ylabel(f"{'NLU average' if column is AVERAGE else column.label}, {column.quantity}")
    return Drawing(figure, results.shown(models, BOTH), gaps)


def values(results: Results, models: Sequence[str], column: Column) -> pd.DataFrame:
    """A row for each trained model, variant and layout: `cell`, `value` (NaN for none) and `error` as printed, and costs."""
    costs = results.read("run_costs", RUN_COSTS)
    costs = costs[costs["model"].isin(list(models)) & costs["layout"].isin(BOTH)]
    own = costs.groupby(_PLACE, as_index=False, sort=False)[[*COSTS, "context_length"]].mean()
    places = own[_PLACE].itertuples(index=False, name=None)
    cells = [results.cell(model, variant, layout, "full", column) for model, variant, layout in places]
    return own.assign(
        cell=pd.Series(cells, own.index, dtype=object),
        value=[np.nan if cell.value is None else column.scale * cell.value for cell in cells],
        error=[column.scale * (cell.stderr or 0.0) for cell in cells],
    ).astype({name: float for name in COSTS})


def _lost(results: Results, points: dict[Column, pd.DataFrame], several: bool) -> list[str]:
    """A line for each model whose value is no number, but for those that the gaps explain."""
    explained = set(results.gaps[_PLACE].itertuples(index=False, name=None))
    rows: list[Any] = [(column, row) for column, own in points.items() for row in own[own["value"].isna()].itertuples()]
    return [
        f"{_label(row, several)}: no finite {column.quantity} of {column.label}"
        for column, row in rows
        if (row.model, row.variant, row.layout) not in explained
    ]


def _label(row: Any, several: bool) -> str:
    return f"{row.model} " * several + run_label(row.variant, row.layout)


def front(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Indices of the points (n,) that no other has less of one and no more of the other than, the cheapest first."""
    order = np.lexsort((losses, costs))
    best = np.minimum.accumulate(losses[order])
    return order[np.r_[True, best[1:] < best[:-1]]]


def _top(own: pd.DataFrame, column: Column) -> float:
    standard = own.loc[own["variant"] == "standard", "value"].max()
    return WIDEST.get(column.metric, np.inf) * (own["value"].min() if np.isnan(standard) else standard)


def _beyond(own: pd.DataFrame, column: Column, several: bool) -> str:
    """What stands at the upper edge, and its values."""
    rows = own[own["value"] > _top(own, column)]
    names = [f"{_label(row, several)} ({row.value:,.4g})" for row in rows.itertuples()]
    return f"At the upper edge, and beyond it: {', '.join(names)}." if names else ""


def _limit(axes: Axes, own: pd.DataFrame, column: Column) -> None:
    """The axis of quality."""
    if own.empty:
        return
    shown = own[own["value"] <= _top(own, column)]
    low, high = (shown["value"] - shown["error"]).min(), (shown["value"] + shown["error"]).max()
    if column.is_perplexity:
        low, high = max(low, shown["value"].min() / 2) / 1.05, high * 1.08
        axes.set_yscale("log")
        axes.set_yticks([], minor=True)
        style.set_ticks(axes.yaxis, style.log_ticks(low, high, 6))
        axes.set_ylim(low, high)
    else:
        room = 0.06 * (high - low) or 0.05 * high
        axes.set_ylim(low - room, high + room)


def _panel(axes: Axes, own: pd.DataFrame, cost: str, column: Column, sizes: dict[str, float], label: str) -> None:
    at, unit = _place(axes, own[cost].to_numpy())
    axes.set_xlabel(label.format(unit, length=int(own["context_length"].max())), labelpad=1.5)
    losses = own["value"].to_numpy() * (-1 if column.is_accuracy else 1)
    best = front(at, losses)
    axes.step(
        [*at[best], axes.get_xlim()[1]],
        [*own["value"].iloc[best], own["value"].iloc[best[-1]]],
        where="post",
        zorder=1,
        **FRONT,
    )
    top = _top(own, column)
    rows: list[Any] = list(own.itertuples())
    # Small ones stand on large ones, and a hybrid within its uniform model where they agree.
    for x, row in sorted(
        zip(at, rows, strict=True), key=lambda each: (-sizes[each[1].model], each[1].layout != "uniform")
    ):
        hybrid = row.layout != "uniform"
        look = style.dot(row.variant, hybrid, sizes[row.model] * (0.85 if hybrid else 1.0))
        if row.value > top:
            axes.plot(x, 1, transform=axes.get_xaxis_transform(), clip_on=False, zorder=4, **look)
        else:
            axes.plot(
                [x, x], [row.value - row.error, row.value + row.error], color=look["color"], linewidth=0.8, zorder=2
            )
            axes.plot(x, row.value, zorder=3, **look)


def _place(axes: Axes, costs: np.ndarray) -> tuple[np.ndarray, str]:
    """Places on the axis of costs, in units of a prefix; nothing at all stands left of the least."""
    some = costs[costs > 0]
    if not len(some):
        axes.set_xticks([0])
        return costs, ""
    prefix = min(int(np.log10(some.max()) // 3), len(_PREFIXES) - 1)
    at, some = costs / 1000.0**prefix, some / 1000.0**prefix
    low, high = some.min(), some.max()
    zero = low / 2.5
    if (costs == 0).any() or high > 2 * low:
        axes.set_xscale("log")
        axes.set_xticks([], minor=True)
        ticks = style.log_ticks(low / 1.01, high * 1.01, 5)
        if (costs == 0).any():
            at = np.where(at > 0, at, zero)
            axes.set_xticks([zero, *ticks], ["0", *(f"{tick:,g}" for tick in ticks)])
        else:
            style.set_ticks(axes.xaxis, ticks)
        axes.set_xlim(at.min() / 1.25, high * 1.25)
    else:
        room = 0.08 * (high - low) or 0.05 * high
        axes.set_xlim(low - room, high + room)
    return at, _PREFIXES[prefix]
