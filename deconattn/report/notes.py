"""Sentences beside values: how large the models are, what ± is, how fast they trained, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deconattn.report import schema
from deconattn.report.names import NLU_TASKS, Column, count_label, layout_label, run_label
from deconattn.report.results import Cell, Results

PAPER_SIZE = {"parameters": 500e6, "training tokens": 15e9}
"""The paper's 500m models."""


# ---- what the results themselves support ----------------------------------------------------------------------------
def caveats(results: Results, model: str, layouts: Sequence[str], tasks: Collection[str] = NLU_TASKS) -> list[str]:
    """Sentences on the size of the models, on their losses, and on how many accuracies on `tasks` are off chance."""
    runs = results.runs[results.runs["run"].isin(results.shown([model], layouts))]
    finished = runs[runs["status"] == "finished"]
    count, tokens = len(finished[["variant", "layout"]].drop_duplicates()), results.tokens(model)
    models = f"{count} model{'' if count == 1 else 's'} ({results.heading(model)})"
    budget = f", each trained on {count_label(tokens)} tokens" if tokens else ""
    sentences = [f"{models}{budget}, with {results.seeds_label(model)} each."]
    own = {"parameters": results.shape(model, "parameters"), "training tokens": tokens}
    if fewer := [f"{PAPER_SIZE[k] / n:,.0f} times fewer {k}" for k, n in own.items() if n and n < PAPER_SIZE[k] / 10]:
        sentences.append(f"This is {' and '.join(fewer)} than the paper's 500m models.")
    return [*sentences, *_losses(finished), *_chance(results, runs, tasks)]


def _losses(finished: pd.DataFrame) -> list[str]:
    """The range of the final held-out losses, and what is known of the noise between seeds."""
    models = finished.groupby(["variant", "layout"])
    losses = models["final_heldout_loss"].mean().dropna().sort_values()
    if len(losses) < 2:
        return []
    best, worst = (f"{losses.iloc[at]:.2f} ({run_label(*losses.index[at])})" for at in (0, -1))
    noise = "with one seed each, the noise between seeds is unknown"
    if models["seed"].nunique().max() > 1:
        widest = models["final_heldout_loss"].agg(lambda own: own.max() - own.min()).max()
        noise = f"the widest range between seeds of one model is {widest:.2f}"
    return [f"Final held-out losses lie between {best} and {worst} nats a token; {noise}."]


def _chance(results: Results, runs: pd.DataFrame, tasks: Collection[str]) -> list[str]:
    """How many accuracies on `tasks` differ from random guessing by more than two standard errors."""
    guesses = results.baselines[results.baselines["baseline"] == "random_guess"]
    rows = results.evaluation[results.evaluation["run"].isin(runs["run"])]
    rows = rows[(rows["mode"] == "full") & (rows["metric"] == "acc") & rows["task"].isin(list(tasks))]
    rows = rows.merge(guesses, on=["task", "metric"], suffixes=("", "_guess"))
    rows = rows[np.isfinite(rows["value"]) & (rows["stderr"] > 0)].dropna(subset=["value_guess"])
    if rows.empty:
        return []
    distance = (rows["value"] - rows["value_guess"]) / rows["stderr"]
    return [
        f"NLU accuracies of trained models (one a task, model and seed; skips aside) more than two standard errors above "
        f"random guessing: {(distance > 2).sum()} of {len(rows)}; as far below it: {(distance < -2).sum()}. By luck alone, "
        "about one in twenty would be so far off."
    ]


# ---- what ± is ------------------------------------------------------------------------------------------------------
def spread_label(cells: Iterable[Cell]) -> str:
    """What ± stands for in these cells, in a few words; empty where none has one."""
    kinds = {str(cell.stderr_of) for cell in cells if cell.stderr is not None}
    return {"": "", "items": "± standard error", "seeds": "± deviation over seeds"}.get("".join(kinds), "± (see foot)")


def spread_note(cells: Iterable[Cell]) -> str:
    """What ± stands for in these cells, in a sentence; empty where none has one."""
    kinds = {cell.stderr_of for cell in cells if cell.stderr is not None}
    if kinds == {"items"}:
        return "± is the standard error over test items. It does not include variation between training seeds."
    one = "; where only one seed is there, the standard error over test items" if "items" in kinds else ""
    return f"± is the standard deviation over training seeds{one}." if kinds else ""


def whisker_note(bands: Iterable[Mapping[Column, Mapping[Any, Cell]]]) -> str:
    """`spread_note` for the whiskers of a figure's panels, with the columns that have values and no whisker."""
    cells: dict[str, list[Cell]] = {}
    for band in bands:
        for column, own in band.items():
            name = f"{column.label} ({column.quantity.removesuffix(', %')})"
            cells.setdefault(name, []).extend(cell for cell in own.values() if cell.value is not None)
    note = spread_note(cell for own in cells.values() for cell in own)
    bare = [name for name, own in cells.items() if own and all(cell.stderr is None for cell in own)]
    return note and (f"Whiskers: {note}" + (f" {' and '.join(bare)}: without." if bare else ""))


# ---- how it was made ------------------------------------------------------------------------------------------------
def limits_note(results: Results, model: str) -> str:
    """Which tasks were scored on a part of their items; empty if none."""
    rows = results.evaluation
    parts = rows[(rows["model"] == model) & rows["limit"].notna()].groupby("task")["limit"].max()
    items = ", ".join(f"{task} ({count:,} items)" for task, count in parts.items())
    return f"Scored on a part of the items only: {items}." if items else ""


_TRAINING = {
    "tokens_per_second": (1, ",.0f", "{} tokens/s"),
    "mfu": (100, ".1f", "MFU {} % by each variant's own FLOPs"),
    "data_share": (100, ".1f", "{} % of the time waiting for data"),
    "peak_memory_bytes": (1e-9, ".1f", "{} GB of memory in a process at most"),
}
"""Column of `runs` → scale, digits, words."""


def throughput_note(results: Results, model: str) -> str:
    """How fast the runs of a model were trained, from the slowest to the fastest; empty if nothing was measured."""
    runs, parts = results.runs[results.runs["model"] == model], []
    for name, (scale, digits, words) in _TRAINING.items():
        if len(values := scale * runs[name].dropna().astype(float)):
            ends = dict.fromkeys(format(value, digits) for value in (values.min(), values.max()))
            parts.append(words.format(" to ".join(ends)))
    return f"Trained at {'; '.join(parts)}." if parts else ""


# ---- what is not there ----------------------------------------------------------------------------------------------
def run_gaps(
    results: Results,
    models: Sequence[str],
    variants: Collection[str],
    layouts: Collection[str] | None = None,
    without: str = "",
) -> list[str]:
    """One line a run that is missing, diverged or not evaluated, such as `mlp uniform: not trained yet`.

    Args:
        models: whose runs; several are told apart.
        variants, layouts: limit the runs (None: every layout; the standard model always counts as wanted).
        without: a stage whose gaps do not concern the exhibit.
    """
    gaps, lines = results.gaps, []
    wanted = gaps["variant"].isin(list(variants)) & (gaps["stage"] != without)
    if layouts is not None:
        wanted &= gaps["layout"].isin(list(layouts)) | (gaps["variant"] == "standard")
    for model in models:
        name = f"{model} " if len(models) > 1 else ""
        own = gaps[wanted & (gaps["model"] == model)]
        lines += [f"{name}{line}" for line in gap_lines(own, results.seeds(model) > 1)]
    return lines


def gap_lines(gaps: pd.DataFrame, several: bool) -> list[str]:
    """Rows of a table of gaps as lines; `several` seeds are told apart."""
    seeds = [f" (seed {seed})" if several and not pd.isna(seed) else "" for seed in gaps["seed"]]
    rows = zip(gaps["variant"], gaps["layout"], seeds, gaps["reason"], strict=True)
    return [f"{run_label(variant, layout)}{seed}: {reason}" for variant, layout, seed, reason in rows]


def outside_grid(results: Results, model: str, variants: Collection[str], layouts: Collection[str]) -> list[str]:
    """The line on what an exhibit of `variants` × `layouts` would show and the configuration does not have, if any.

    A layout that no variant has is named once.
    """
    names = []
    for layout in layouts:
        absent = [variant for variant in variants if results.select_runs(model, variant, layout).empty]
        whole = len(absent) == len(variants)
        names += [layout_label(layout)] if whole else [run_label(variant, layout) for variant in absent]
    return [f"not in this grid: {', '.join(names)}"] if names else []


def gap_line(gaps: Sequence[str], most: int = 6) -> str:
    """The line under a figure that says what is not in it; empty when nothing is missing."""
    more = f"; and {len(gaps) - most} more (all are in the figure's JSON)" if len(gaps) > most else ""
    return f"Gaps: {'; '.join(gaps[:most])}{more}." if gaps else ""


def analysis_gaps(results: Results, model: str, wanted: Collection[tuple[str, str]]) -> list[str]:
    """One line a run of the (variant, layout) pairs that is not trained, diverged, not analysed or not planned."""
    trained = results.gaps[results.gaps["stage"].isin(["pretrain", "sweep"])]
    analysed = results.read("analysis_gaps", schema.GAPS)
    lines = []
    # A run that diverged is in both tables, once with the step at which it did.
    for gaps in (trained, analysed[~analysed["run"].isin(trained["run"])]):
        pairs = pd.Series([*zip(gaps["variant"], gaps["layout"], strict=True)], gaps.index, dtype=object)
        lines += gap_lines(gaps[(gaps["model"] == model) & pairs.isin(list(wanted))], results.seeds(model) > 1)
    absent = [pair for pair in wanted if results.select_runs(model, *pair).empty]
    return lines + [f"{run_label(*pair)}: not in this grid" for pair in absent]


def without_map(
    results: Results, model: str, wanted: Collection[tuple[str, str]], found: Collection[tuple[str, str]]
) -> str:
    """The sentence that names what was analysed and has no map to show, like a model of `mlp` alone; else empty."""
    untrained = results.gaps.loc[results.gaps["stage"] == "pretrain", "run"]
    explained = {*results.read("analysis_gaps", schema.GAPS)["run"], *untrained}
    runs = {pair: set(results.select_runs(model, *pair)["run"]) for pair in wanted if pair not in found}
    names = [run_label(*pair) for pair, own in runs.items() if own and not own & explained]
    return f"Without an attention map: {', '.join(names)}." if names else ""
