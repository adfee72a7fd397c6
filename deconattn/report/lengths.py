"""How well a text is predicted at each context length, and why a model has no value at one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deconattn.exhibits import BOTH
from deconattn.report.names import Column, run_label
from deconattn.report.results import Results

PLACE = ["variant", "layout", "mode"]


def values(results: Results, model: str, text: Column) -> pd.DataFrame:
    """A row for each variant, layout, mode and context length: mean, low and high of the finite values, and how many seeds
    have one (`seeds`) and were scored (`scored`)."""
    rows = results.evaluation
    own = (rows["model"] == model) & (rows["task"] == text.task) & (rows["metric"] == text.metric)
    rows = rows[own & rows["layout"].isin(BOTH) & rows["mode"].isin(["full", "reweighted"])]
    rows = rows.assign(value=rows["value"].astype(float).replace(np.inf, np.nan))
    return rows.groupby([*PLACE, "context_length"], as_index=False).agg(
        mean=("value", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        seeds=("value", "count"),
        scored=("run", "size"),
    )


def label(variant: str, layout: str, mode: str) -> str:
    return run_label(variant, layout) + (", re-weighted" if mode == "reweighted" else "")


def gaps(results: Results, model: str, points: pd.DataFrame) -> list[str]:
    """What models that were evaluated have no value of, a line a reason."""
    reasons: dict[str, list[str]] = {}
    lengths = set(points["context_length"])
    for (variant, layout, mode), line in points.groupby(PLACE, sort=False):
        name = label(str(variant), str(layout), str(mode))
        positions = results.select_runs(model, str(variant), str(layout))["max_position_embeddings"].max()
        if absent := sorted(lengths - set(line["context_length"])):
            ends = not pd.isna(positions) and absent[0] > positions
            why = f"no map beyond the {positions:,} positions of a side stream" if ends else "not evaluated"
            reasons.setdefault(f"{why} (at {_listed(absent)})", []).append(name)
        lost = line[line["seeds"] < line["scored"]]
        if len(lost):
            some = " of some seeds" if lost["seeds"].min() else ""
            reasons.setdefault(f"no finite value{some} (at {_listed(lost['context_length'])})", []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def _listed(lengths: Any) -> str:
    return ", ".join(f"{length:,}" for length in lengths)
