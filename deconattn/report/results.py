"""The collected tables in memory, and one value with its uncertainty for each cell of an exhibit."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from deconattn.errors import UserError
from deconattn.nearest import not_one_of
from deconattn.report import schema
from deconattn.report.names import NLU_TASKS, Column, in_order, layouts_in_order


@dataclass(frozen=True)
class Cell:
    """One value of an exhibit.

    status: `ok`, `infinite` (a perplexity that overflowed), `diverged` or `missing`; value is finite only when `ok`.
    stderr: with one seed the standard error over the items scored, with several the standard deviation over
    seeds; `stderr_of` says which (`items`, `seeds`). tasks: how many went into an average.
    after_divergence: a value of a model whose training had diverged. text: what is printed in the place of a number.
    """

    status: str
    value: float | None = None
    stderr: float | None = None
    stderr_of: str | None = None
    items: int | None = None
    tasks: int | None = None
    seeds: int = 0
    seeds_planned: int = 0
    context_length: int | None = None
    after_divergence: bool = False
    text: str | None = None


MISSING = Cell("missing")


class Results:
    """What `collect` wrote, with the look-ups that tables and figures share."""

    READS: ClassVar[tuple[str, ...]] = ("baselines", "evaluation", "gaps", "runs", "training")

    def __init__(self, folder: Path) -> None:
        """Read the tables of `folder`; raises `UserError` naming the first that is absent or broken."""
        self.folder = Path(folder)
        self.runs = schema.read_table(self.folder / "runs.parquet", schema.RUNS)
        self.evaluation = schema.read_table(self.folder / "evaluation.parquet", schema.EVALUATION)
        baselines = self.folder / "baselines.parquet"
        self.baselines = (
            schema.read_table(baselines, schema.BASELINES)
            if baselines.is_file()
            else pd.DataFrame(columns=schema.BASELINES.names)
        )
        self.gaps = schema.read_table(self.folder / "gaps.parquet", schema.GAPS)

    @cached_property
    def training(self) -> pd.DataFrame:
        """The training curves: large, and read only by those who draw them."""
        return schema.read_table(self.folder / "training.parquet", schema.TRAINING)

    def check_models(self, models: list[str]) -> None:
        """Raise `UserError` for a model that no run of the report has."""
        known = list(dict.fromkeys(self.runs["model"]))
        for model in models:
            if model not in known:
                raise UserError(f"{self.folder}: {not_one_of(model, 'model of these runs', known)}")

    def models(self) -> list[str]:
        """Models in the order of their parameters (those without any finished run last)."""
        sizes = {model: self.parameters(model) for model in dict.fromkeys(self.runs["model"])}
        return sorted(sizes, key=lambda model: (math.inf if sizes[model] is None else sizes[model], model))

    def parameters(self, model: str) -> int | None:
        """Parameters of the standard model, or of the first run that tells."""
        return self._of_model(model, "parameters")

    def tokens(self, model: str) -> int | None:
        """Tokens that a run of the model was trained on: the most of any, as a diverged run stops early."""
        values = self.runs.loc[self.runs["model"] == model, "tokens"].dropna()
        return None if values.empty else int(values.max())

    def layers(self, model: str) -> int | None:
        return self._of_model(model, "layers")

    def seeds(self, model: str) -> int:
        return int(self.runs.loc[self.runs["model"] == model, "seed"].nunique())

    def variants(self, model: str) -> list[str]:
        return in_order(self.runs.loc[self.runs["model"] == model, "variant"])

    def layouts(self, model: str) -> list[str]:
        """Layouts of the simple variants; the standard model is always uniform and says nothing about the grid."""
        own = self.runs[(self.runs["model"] == model) & (self.runs["variant"] != "standard")]
        return layouts_in_order(own["layout"])

    def select_runs(self, model: str, variant: str, layout: str) -> pd.DataFrame:
        return self._groups.get((model, variant, layout), self.runs.iloc[:0])

    def has(self, model: str, column: Column) -> bool:
        """Whether any run of the model has a value for the column."""
        rows = self.evaluation[self.evaluation["model"] == model]
        if column.task == "nlu_avg":
            return bool(((rows["metric"] == "acc") & rows["task"].isin(NLU_TASKS)).any())
        wanted = (rows["task"] == column.task) & (rows["metric"] == column.metric)
        if column.context_length is not None:
            wanted &= rows["context_length"] == column.context_length
        return bool(wanted.any())

    def cell(self, model: str, variant: str, layout: str, mode: str, column: Column) -> Cell:
        """The value of a column for one model of the grid, over all its seeds.

        A column without a context length takes the length the model was trained with, else the longest there is.
        """
        runs = self.select_runs(model, variant, layout)
        planned, diverged = len(runs), bool((runs["status"] == "diverged").any())
        rows = self._rows(runs["run"], mode)
        if column.task == "nlu_avg":
            per_seed = _averages(rows)
        else:
            rows = rows[(rows["task"] == column.task) & (rows["metric"] == column.metric)]
            per_seed = _at_length(rows, column.context_length, runs["context_length"])
        finite = per_seed[np.isfinite(per_seed["value"].to_numpy(dtype=float))]
        if finite.empty:
            if not per_seed.empty and bool(np.isposinf(per_seed["value"]).any()):
                return Cell("infinite", seeds_planned=planned)
            return Cell("diverged" if diverged or not per_seed.empty else "missing", seeds_planned=planned)
        spread, of = _spread(finite)
        return Cell(
            "ok",
            float(finite["value"].mean()),
            spread,
            of,
            _whole(finite["items"].min()),
            _whole(finite["tasks"].min()),
            len(finite),
            planned,
            _whole(finite["context_length"].max()),
            diverged,
        )

    def baseline(self, name: str, column: Column, averaged: Collection[str] = NLU_TASKS) -> Cell:
        """Random guess or majority class on the items of a task; the average is over those of `averaged` there are."""
        rows = self.baselines[(self.baselines["baseline"] == name) & (self.baselines["metric"] == column.metric)]
        if column.task == "nlu_avg":
            rows = rows[rows["task"].isin(list(averaged))]
            if rows.empty:
                return MISSING
            return Cell("ok", float(rows["value"].mean()), tasks=int(rows["task"].nunique()))
        rows = rows[rows["task"] == column.task].dropna(subset=["value"])
        if rows.empty:
            return MISSING
        value, items = float(rows["value"].iloc[0]), _whole(rows["items"].iloc[0])
        return Cell("ok", value, items=items) if math.isfinite(value) else Cell("infinite", items=items)

    @cached_property
    def _groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        return {
            (str(m), str(v), str(at)): rows for (m, v, at), rows in self.runs.groupby(["model", "variant", "layout"])
        }

    @cached_property
    def _evaluations(self) -> dict[tuple[str, str], pd.DataFrame]:
        return {(str(run), str(mode)): rows for (run, mode), rows in self.evaluation.groupby(["run", "mode"])}

    def _rows(self, runs: pd.Series, mode: str) -> pd.DataFrame:
        found = [self._evaluations[run, mode] for run in runs if (run, mode) in self._evaluations]
        return pd.concat(found) if len(found) > 1 else found[0] if found else self.evaluation.iloc[:0]

    def _of_model(self, model: str, name: str) -> int | None:
        rows = self.runs[(self.runs["model"] == model) & self.runs[name].notna()]
        if rows.empty:
            return None
        standard = rows[rows["variant"] == "standard"]
        return int((rows if standard.empty else standard)[name].iloc[0])


def _averages(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy of each run over the NLU tasks that all these runs have.

    Its standard error takes the tasks as independent: the root of the sum of squares, over their number.
    """
    rows = rows[(rows["metric"] == "acc") & rows["task"].isin(NLU_TASKS) & np.isfinite(rows["value"])]
    counts = rows.groupby("task")["run"].nunique()
    rows = rows[rows["task"].isin(counts.index[counts == rows["run"].nunique()])]
    out = []
    for run, group in rows.groupby("run"):
        error = math.sqrt((group["stderr"] ** 2).sum()) / len(group) if group["stderr"].notna().all() else None
        out.append({"run": run, "value": group["value"].mean(), "stderr": error, "tasks": len(group)})
    return pd.DataFrame(out, columns=["run", "value", "stderr", "items", "tasks", "context_length"])


def _at_length(rows: pd.DataFrame, wanted: int | None, trained: pd.Series) -> pd.DataFrame:
    if wanted is None and not rows.empty:
        present = set(rows["context_length"].dropna())
        at_training = present & set(trained.dropna())
        wanted = max(at_training or present, default=None)
    if wanted is not None:
        rows = rows[rows["context_length"] == wanted]
    if rows["run"].duplicated().any():
        twice = rows.loc[rows["run"].duplicated()].iloc[0]
        raise UserError(f"run {twice['run']}: {twice['task']} {twice['metric']} stands twice in its evaluation")
    return rows.assign(tasks=None)


def _spread(rows: pd.DataFrame) -> tuple[float | None, str | None]:
    if len(rows) > 1:
        return float(rows["value"].std(ddof=1)), "seeds"
    error = rows["stderr"].iloc[0]
    return (None, None) if pd.isna(error) else (float(error), "items")


def _whole(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[call-overload]
