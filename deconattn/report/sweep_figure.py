"""`figure_sweep`: held-out loss against a training setting of which several values were tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deconattn.exhibits import BOTH
from deconattn.report import schema, style, sweep
from deconattn.report.draw import Drawing
from deconattn.report.names import colour, in_order, layout_label
from deconattn.report.notes import gap_line, gap_lines
from deconattn.report.results import Results

_RING: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "linestyle": "none"}


def figure_sweep(results: Results, options: dict[str, Any]) -> Drawing:
    """`figure_sweep` for `options["model"]` over `options["setting"]`; what has no loss is named at the foot."""
    model, setting = options["model"], options["setting"]
    runs = results.all_runs[results.all_runs["model"] == model]
    runs = runs[runs["layout"].isin(BOTH) | (runs["variant"] == "standard")]
    points = _points(runs, setting)
    gaps = _gaps(results, runs, model)
    foot = [
        "Mean over seeds of the loss on held-out text at the end of training, with the range over seeds; of settings that "
        "differ in something else, the best. Ring: the setting that the other tables and figures show, the lowest loss.",
        gap_line(gaps),
    ]
    figure = style.sheet(style.DOUBLE_COLUMN, 2.7, foot)
    entries = {**style.dots(in_order(points["variant"])), "shown": {**_RING, "color": style.GREY}}
    style.legend(figure, entries, model, min(len(entries), 8))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, layout in zip(panels, BOTH, strict=True):
        axes.set_title(layout_label(layout).capitalize(), color=style.GREY)
        axes.set_xlabel(setting.replace("_", " "))
        axes.grid(True, axis="y")
        own = points[(points["layout"] == layout) | (points["variant"] == "standard")]
        if own.empty:
            style.empty(axes, "no held-out loss yet")
        for (variant, at), line in own.groupby(["variant", "layout"]):
            shade, hybrid = colour(str(variant)), at != "uniform"
            axes.vlines(line[setting], line["low"], line["high"], color=shade, linewidth=0.7)
            axes.plot(line[setting], line["mean"], **style.line(str(variant), hybrid))
            axes.plot(line[setting], line["mean"], zorder=3, **style.dot(str(variant), hybrid))
            best = line[line["shown"]]
            axes.plot(best[setting], best["mean"], zorder=4, markeredgewidth=0.8, color=shade, **_RING)
    panels[0].set_ylabel("held-out loss, nats a token")
    tried = sorted(points[setting].unique())
    if len(tried) > 1 and tried[0] > 0:
        panels[0].set_xscale("log")
        tried = style.log_ticks(tried[0] / 1.0001, tried[-1] * 1.0001, 6) if len(tried) > 6 else tried
    panels[0].set_xticks([], minor=True)
    style.set_ticks(panels[0].xaxis, tried)
    return Drawing(figure, runs.loc[runs["final_heldout_loss"].notna(), "run"].tolist(), gaps)


def _gaps(results: Results, runs: pd.DataFrame, model: str) -> list[str]:
    """One line a run that is missing or diverged, of every setting."""
    gaps = schema.read_table(results.folder / "gaps.parquet", schema.GAPS)
    own = gaps[gaps["stage"] == "pretrain"].merge(runs[["run", "settings"]], on="run")
    own["reason"] = [
        f"{why} ({name})" if name else why for why, name in zip(own["reason"], own["settings"], strict=True)
    ]
    return gap_lines(own, results.seeds(model) > 1)


def _points(runs: pd.DataFrame, setting: str) -> pd.DataFrame:
    """A row for each variant, layout and value of the setting: mean, low, high, and whether exhibits show it."""
    known = runs.assign(shown=sweep.is_best(runs)).dropna(subset=["final_heldout_loss", setting])
    known = known[np.isfinite(known["final_heldout_loss"]) & known["status"].ne("diverged")].astype({setting: float})
    place = ["variant", "layout", setting]
    seeds = known.groupby([*place, "settings"], as_index=False).agg(
        mean=("final_heldout_loss", "mean"),
        low=("final_heldout_loss", "min"),
        high=("final_heldout_loss", "max"),
        shown=("shown", "any"),
    )
    return seeds.sort_values("mean", kind="stable").drop_duplicates(place).sort_values(place)
