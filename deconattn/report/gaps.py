"""What is not there: runs of an exhibit that are missing or diverged, in lines that a reader can act on."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from deconattn.report.names import layout_label, run_label
from deconattn.report.results import Results


def run_gaps(
    results: Results, model: str, variants: Collection[str], layouts: Collection[str] | None = None
) -> list[str]:
    """One line a run of `model` that is missing, diverged or not evaluated, such as `mlp uniform: not trained yet`.

    Args: variants and layouts limit the runs (None: every layout; the standard model always counts as wanted).
    """
    gaps = results.gaps
    own = gaps[(gaps["model"] == model) & gaps["variant"].isin(list(variants))]
    if layouts is not None:
        own = own[own["layout"].isin(list(layouts)) | (own["variant"] == "standard")]
    several = results.seeds(model) > 1
    return [_line(row, several) for _, row in own.iterrows()]


def baseline_gaps(results: Results) -> list[str]:
    """The line that says that random-guess and majority values are not there, if they are not."""
    gaps = results.gaps
    return gaps.loc[gaps["stage"] == "baselines", "reason"].tolist()


def outside_grid(results: Results, model: str, variants: Collection[str], layouts: Collection[str]) -> str | None:
    """What an exhibit of `variants` × `layouts` would show and the configuration does not ask for; None if nothing.

    A layout that no variant has is named once.
    """
    without: dict[str, list[str]] = {}
    for layout in layouts:
        absent = [variant for variant in variants if results.select_runs(model, variant, layout).empty]
        if absent:
            without[layout] = absent
    whole = [layout_label(layout) for layout, absent in without.items() if len(absent) == len(variants)]
    single = [run_label(v, layout) for layout, absent in without.items() if len(absent) < len(variants) for v in absent]
    return f"not in this grid: {', '.join([*whole, *single])}" if without else None


def _line(row: pd.Series, several: bool) -> str:
    seed = f" (seed {row['seed']})" if several else ""
    return f"{run_label(row['variant'], row['layout'])}{seed}: {row['reason']}"
