"""What the analysis left, as the figures read it: values by layer, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from deconattn.analysis.schema import ATTENTION, SCORES
from deconattn.report import schema
from deconattn.report.names import run_label
from deconattn.report.results import Results

INDICATOR_TABLES, SCORE_TABLES = ("attention", "analysis_gaps"), ("scores", "analysis_gaps")
"""What the figures read beyond what all exhibits read."""
NORMALISED: dict[str, str] = {"entropy": "nats", "concentration": "", "head_diversity": ""}
"""Indicators that are drawn between the least and the greatest of a figure (SPEC §7), and their units."""
DRAWN_TIMES: dict[str, float] = {f"local_focus_{n}": 2.0 for n in range(4)}
"""Factors by which absolute indicators are drawn; 1 where not named."""
INDICATORS: tuple[str, ...] = (*NORMALISED, *DRAWN_TIMES, "sink")


@dataclass(frozen=True)
class Layers:
    """Indicators of one model of the grid: a row a layer (index, from 1), a column each of `INDICATORS`."""

    values: pd.DataFrame
    standard: pd.Series
    runs: tuple[str, ...]

    def of(self, standard: bool) -> pd.DataFrame:
        """The layers that keep standard attention, or the others."""
        return self.values[self.standard == standard]


def attention_of(results: Results, model: str) -> dict[tuple[str, str], Layers]:
    """(variant, layout) → layers of the model's runs that have maps; means over heads, and over seeds."""
    rows = schema.read_table(results.folder / "attention.parquet", ATTENTION)
    found = {}
    for (variant, layout), own in rows[rows["model"] == model].groupby(["variant", "layout"]):
        means = own.pivot_table(index=["layer", "standard"], columns="indicator", values="value", aggfunc="mean")
        values = means.reindex(columns=list(INDICATORS)).reset_index("standard")
        runs = tuple(sorted(own["run"].unique()))
        found[str(variant), str(layout)] = Layers(values[list(INDICATORS)], values["standard"], runs)
    return found


def scores_of(results: Results, model: str, variant: str, layout: str) -> pd.DataFrame:
    """Rows of the collected scores (see `deconattn.analysis.schema.SCORES`) of one model of the grid, all its seeds."""
    rows = schema.read_table(results.folder / "scores.parquet", SCORES)
    return rows[(rows["model"] == model) & (rows["variant"] == variant) & (rows["layout"] == layout)]


def analysis_gaps(results: Results, model: str, wanted: Collection[tuple[str, str]]) -> list[str]:
    """One line for each run of the (variant, layout) pairs that is not trained, diverged or not analysed."""
    own = schema.read_table(results.folder / "analysis_gaps.parquet", schema.GAPS)
    runs = results.gaps[results.gaps["stage"] == "pretrain"]
    # A run that diverged is in both tables, once with the step at which it did.
    own = own[~own["run"].isin(runs["run"])]
    several = results.seeds(model) > 1
    lines = []
    for _, row in pd.concat([frame for frame in (runs, own) if not frame.empty] or [own]).iterrows():
        if row["model"] == model and (row["variant"], row["layout"]) in wanted:
            seed = f" (seed {row['seed']})" if several else ""
            lines.append(f"{run_label(row['variant'], row['layout'])}{seed}: {row['reason']}")
    return lines


def without_map(
    results: Results, model: str, wanted: Collection[tuple[str, str]], found: Collection[tuple[str, str]]
) -> str:
    """The sentence that names what was analysed and has no map to show, like a model of `mlp` alone; else empty."""
    gaps = analysis_gaps(results, model, wanted)
    names = [run_label(*pair) for pair in wanted if pair not in found and not results.select_runs(model, *pair).empty]
    bare = [name for name in names if not any(gap.startswith((f"{name}:", f"{name} (seed")) for gap in gaps)]
    return f"Without an attention map: {', '.join(bare)}." if bare else ""


class Scale:
    """Where a value stands on its axis: min–max of what one figure shows, or as it is (times a factor)."""

    def __init__(self, shown: Sequence[pd.DataFrame]) -> None:
        """`shown`: all the values of a figure, columns `INDICATORS`."""
        stacked = pd.concat(shown)
        self.ranges: Mapping[str, tuple[float, float]] = {
            name: (float(stacked[name].min()), float(stacked[name].max())) for name in NORMALISED
        }

    def place(self, values: pd.DataFrame) -> pd.DataFrame:
        """The values as they are drawn; 0.5 where all that a figure shows are equal."""
        out = values.copy()
        for name in INDICATORS:
            if name in self.ranges:
                low, high = self.ranges[name]
                out[name] = (values[name] - low) / (high - low) if high > low else 0.5
            else:
                out[name] = values[name] * DRAWN_TIMES.get(name, 1.0)
        return out

    def note(self) -> str:
        """The ranges behind the axes that are normalised, for the foot of a figure."""
        parts = []
        for name, (low, high) in self.ranges.items():
            unit = f" {NORMALISED[name]}" if NORMALISED[name] else ""
            parts.append(f"{name.replace('_', ' ')} {low:.3g} to {high:.3g}{unit}")
        return "; ".join(parts)
