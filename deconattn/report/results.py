"""The collected tables in memory, and one value with its uncertainty for each cell of an exhibit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from deconattn.errors import UserError
from deconattn.nearest import not_one_of
from deconattn.report import schema, sweep
from deconattn.report.names import AVERAGE, NLU_TASKS, Column, count_label, in_order


@dataclass(frozen=True)
class Cell:
    """One value of an exhibit.

    status: `ok`, `infinite` (a perplexity that overflowed), `diverged` or `missing`; value is finite only when `ok`.
    stderr: with one seed the standard error over the items scored, with several the standard deviation over
    seeds; `stderr_of` says which (`items`, `seeds`). tasks: how many went into an average.
    after_divergence: a value of a model whose training had diverged. text: what is printed in place of a number.
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
_CONDITION = ["model", "variant", "layout", "mode"]
_PLACE = [*_CONDITION, "task", "metric", "context_length"]


class Results:
    """What `collect` wrote, each table read when first used; `UserError` naming the file of one that is absent or broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def all_runs(self) -> pd.DataFrame:
        """Every run, with those members of a sweep that are not shown."""
        return schema.read_table(self.folder / "runs.parquet", schema.RUNS)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The runs that are shown: of a sweep those of its best setting."""
        return self.all_runs[sweep.is_best(self.all_runs)]

    def read(self, name: str, columns: pa.Schema) -> pd.DataFrame:
        """A table of the folder without the rows of runs that are not shown."""
        rows = schema.read_table(self.folder / f"{name}.parquet", columns)
        return rows[rows["run"].isin(self.runs["run"]) | rows["run"].isna()]

    def only(self, runs: Collection[str]) -> Results:
        """The same with these runs alone; items of all runs are read once."""
        own = Results(self.folder)
        own.__dict__ |= {"all_runs": self.all_runs[self.all_runs["run"].isin(list(runs))], "samples": self.samples}
        return own

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        return self.read("evaluation", schema.EVALUATION)

    @cached_property
    def samples(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """(run, mode, task) → its items, a row each, at the context length that `cell` takes."""
        rows = self.read("samples", schema.SAMPLES)
        lengths = rows["context_length"].astype(float)
        trained = rows["run"].astype(object).map(self.runs.set_index("run")["context_length"])
        wanted = lengths.mask((lengths == trained.astype(float)).fillna(False), np.inf)
        keys = ["run", "mode", "task"]
        rows = rows[wanted == wanted.groupby([rows[key] for key in keys], observed=True).transform("max")]
        rows["document"] = rows["document"].cat.codes  # what is the same in two runs has the same number
        return {(str(run), str(mode), str(task)): own for (run, mode, task), own in rows.groupby(keys, observed=True)}

    @cached_property
    def training(self) -> pd.DataFrame:
        return self.read("training", schema.TRAINING)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """What is missing, and how what is shown of a sweep was chosen."""
        gaps, notes = self.read("gaps", schema.GAPS), sweep.notes(self.all_runs)
        return gaps if notes.empty else pd.concat([gaps, notes], ignore_index=True)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        path = self.folder / "baselines.parquet"
        if not path.is_file():
            return pd.DataFrame(columns=schema.BASELINES.names)
        return schema.read_table(path, schema.BASELINES)

    # ---- models -----------------------------------------------------------------------------------------------------
    def check_models(self, models: list[str]) -> None:
        """Raise `UserError` for a model that no run of the report has."""
        known = list(dict.fromkeys(self.runs["model"]))
        for model in models:
            if model not in known:
                raise UserError(f"{self.folder}: {not_one_of(model, 'model of these runs', known)}")

    def shape(self, model: str, name: str) -> int | None:
        """A column of `runs` that the runs of a model share: of the standard model, or of the first run that has it."""
        rows = self.runs[self.runs["model"] == model].dropna(subset=[name])
        rows = rows.sort_values("variant", key=lambda variant: variant != "standard", kind="stable")
        return None if rows.empty else int(rows[name].iloc[0])

    def tokens(self, model: str) -> int | None:
        """Tokens that a run of the model was trained on: the most of any, as a diverged run stops early."""
        most = self.runs.loc[self.runs["model"] == model, "tokens"].max()
        return None if pd.isna(most) else int(most)

    def heading(self, model: str) -> str:
        """The model and its size, such as `nano, 0.41M parameters`."""
        parameters = self.shape(model, "parameters")
        return model if parameters is None else f"{model}, {count_label(parameters)} parameters"

    def seeds(self, model: str) -> int:
        """Seeds that are planned, trained or not."""
        return int(self.runs.loc[self.runs["model"] == model, "seed"].nunique())

    def seeds_label(self, model: str) -> str:
        """How many seeds each trained variant and layout of the model has, such as `3 seeds` or `1 to 3 seeds`."""
        there = self.runs[(self.runs["model"] == model) & (self.runs["status"] != "missing")]
        counts = there.groupby(["variant", "layout"])["seed"].nunique()
        least, most = min(counts, default=0), max(counts, default=0)
        return f"{least} to {most} seeds" if least != most else "1 seed" if most == 1 else f"{most or 'no'} seeds"

    def variants(self, model: str) -> list[str]:
        return in_order(self.runs.loc[self.runs["model"] == model, "variant"])

    def select_runs(self, model: str, variant: str, layout: str) -> pd.DataFrame:
        return self._groups.get((model, variant, layout), self.runs.iloc[:0])

    @cached_property
    def _groups(self) -> dict[tuple[str, ...], pd.DataFrame]:
        return {tuple(map(str, key)): rows for key, rows in self.runs.groupby(_CONDITION[:3])}

    def shown(self, models: Collection[str], layouts: Collection[str]) -> list[str]:
        """Ids of the trained runs of these models in these layouts, and of their standard models."""
        runs = self.runs[self.runs["model"].isin(list(models)) & self.runs["status"].ne("missing")]
        return runs.loc[runs["layout"].isin(list(layouts)) | (runs["variant"] == "standard"), "run"].tolist()

    # ---- cells ------------------------------------------------------------------------------------------------------
    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row for each of `_PLACE`, over its seeds; the other columns are the fields of `Cell`."""
        rows = self.evaluation.assign(tasks=np.nan)
        rows = pd.concat([rows, *_averages(rows)])
        rows["known"] = rows["value"].where(np.isfinite(rows["value"]))
        found = rows.groupby(_PLACE, as_index=False).agg(
            value=("known", "mean"), deviation=("known", "std"), stderr=("stderr", "first"), items=("items", "min"),
            tasks=("tasks", "min"), seeds=("known", "count"), greatest=("value", "max"),
        )  # fmt: skip
        found["tasks"] = found["tasks"].astype("Int64")
        several = found["seeds"] > 1
        found["stderr"] = found["deviation"].where(several, found["stderr"]).where(found["seeds"] > 0)
        found["stderr_of"] = several.map({True: "seeds", False: "items"}).where(found["stderr"].notna())
        found["status"] = np.select([found["seeds"] > 0, found["greatest"] == np.inf], ["ok", "infinite"], "diverged")
        planned = self.runs.assign(diverged=self.runs["status"] == "diverged").groupby(_CONDITION[:3])
        counts = planned.agg(seeds_planned=("run", "size"), after_divergence=("diverged", "any"))
        return found.join(counts, on=_CONDITION[:3]).drop(columns=["deviation", "greatest"])

    @cached_property
    def _cells(self) -> dict[tuple[str, ...], dict[int, Cell]]:
        """(model, variant, layout, mode, task, metric) → context length → cell."""
        cells: dict[tuple[str, ...], dict[int, Cell]] = {}
        for row in self.scores.astype(object).where(self.scores.notna(), None).to_dict("records"):
            values = {str(name): value for name, value in row.items() if name not in _PLACE}
            length = row["context_length"]
            place = tuple(row[name] for name in _PLACE[:-1])
            cells.setdefault(place, {})[length] = Cell(**values, context_length=length)
        return cells

    def has(self, model: str, column: Column) -> bool:
        """Whether any run of the model has a value for the column."""
        rows = self.scores[["model", "task", "metric"]] == [model, column.task, column.metric]
        lengths = self.scores.loc[rows.all(axis=1), "context_length"]
        return column.context_length in (None, *lengths) and not lengths.empty

    def cell(self, model: str, variant: str, layout: str, mode: str, column: Column) -> Cell:
        """The value of a column for one model of the grid, over all its seeds.

        A column without a context length takes the length the model was trained with, else the longest there is.
        """
        runs = self.select_runs(model, variant, layout)
        found = self._cells.get((model, variant, layout, mode, column.task, column.metric), {})
        wanted = column.context_length
        if wanted is None and found:
            wanted = max(set(found) & set(runs["context_length"].dropna()) or found)
        diverged = bool((runs["status"] == "diverged").any())
        return found.get(wanted or 0) or Cell("diverged" if diverged else "missing", seeds_planned=len(runs))

    def baseline(self, name: str, column: Column, averaged: Collection[str] = NLU_TASKS) -> Cell:
        """Random guess or majority class on the items of a task; the average is over those of `averaged` there are."""
        average = column.task == AVERAGE.task
        rows = self.baselines[(self.baselines["baseline"] == name) & (self.baselines["metric"] == column.metric)]
        rows = rows[rows["task"].isin(averaged if average else [column.task])].dropna(subset=["value"])
        if rows.empty:
            return MISSING
        items = None if average else int(rows["items"].iloc[0])
        return Cell("ok", float(rows["value"].mean()), items=items, tasks=len(rows) if average else None)


def _averages(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The mean accuracy of each run over the NLU tasks that all runs of its variant, layout and mode have.

    Its standard error takes the tasks as independent: the root of the sum of squares, over their number.
    """
    rows = rows[(rows["metric"] == "acc") & rows["task"].isin(NLU_TASKS) & np.isfinite(rows["value"])]
    runs, with_task = (rows.groupby(keys)["run"].transform("nunique") for keys in (_CONDITION, [*_CONDITION, "task"]))
    shared = rows[runs == with_task].assign(squared=rows["stderr"] ** 2)
    means = shared.groupby([*_CONDITION, "run", "context_length"], as_index=False).agg(
        value=("value", "mean"), squared=("squared", lambda s: s.sum(skipna=False)), tasks=("task", "nunique")
    )
    means = means.assign(task=AVERAGE.task, metric="acc", stderr=np.sqrt(means["squared"]) / means["tasks"])
    return [] if means.empty else [means]
