"""The paper's own results (Tables 1 to 4), in the units and names of this project."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from deconattn.report.names import BASELINES, NLU_TASKS, Column
from deconattn.report.results import MISSING, Cell

TABLE_DESCRIPTIONS = {
    "table1": "500m models, 15B tokens of SlimPajama",
    "table2": "1.7b models, 45B tokens of SlimPajama",
    "table3": "500m models with grouped-query attention, 15B tokens of SlimPajama",
    "table4": "500m models, 15B tokens of SlimPajama",
}


@cache
def _read() -> pd.DataFrame:
    frame = pd.read_csv(Path(__file__).with_name("published_results.csv"))
    percent = frame["metric"] == "acc"
    frame[["value", "stderr"]] = frame[["value", "stderr"]].div(percent.map({True: 100.0, False: 1.0}), axis=0)
    frame.loc[frame["variant"].isin(BASELINES), "stderr"] = None  # printed as 0
    frame["mode"] = frame["layout"].eq("hybrid_skip").map({True: "skip", False: "full"})
    frame["layout"] = frame["layout"].replace({"hybrid": "even", "hybrid_skip": "even", "none": "uniform"})
    frame["exhibit"] = "table" + frame["table"].astype(str)
    return frame.drop(columns="table")


def load_published(exhibit: str | None = None) -> pd.DataFrame:
    """The published values, one a row, of one exhibit (`table1` … `table4`) or of all.

    Columns: exhibit, size, heads, variant (the two baselines stand there too), layout (`uniform`, `even`), mode
    (`full`, `skip`), task (`nlu_avg` is the paper's own average), metric, context_length, value, stderr.
    Accuracies are fractions of 1, as ours are; the paper prints per cent.
    """
    frame = _read()
    return (frame if exhibit is None else frame[frame["exhibit"] == exhibit]).reset_index(drop=True)


def published_cells(
    published: pd.DataFrame, variant: str, layout: str, mode: str, columns: list[Column]
) -> dict[str, Cell]:
    """The paper's cells of one row by column key; empty if the paper does not have the row, `missing` without a value."""
    place = published[["variant", "layout", "mode"]] == [variant, layout, mode]
    rows = published[place.all(axis=1)]
    return {} if rows.empty else {column.key: _cell(rows[is_of(rows, column)]) for column in columns}


def _cell(found: pd.DataFrame) -> Cell:
    if found.empty:
        return MISSING
    row = found.iloc[0]
    error = None if pd.isna(row["stderr"]) else float(row["stderr"])
    tasks = len(NLU_TASKS) if row["task"] == "nlu_avg" else None
    length = int(row["context_length"])
    return Cell(
        "ok", float(row["value"]), error, None if error is None else "items", tasks=tasks, context_length=length
    )


def is_of(rows: pd.DataFrame, column: Column) -> pd.Series:
    """Which rows hold a value of the column."""
    wanted = (rows["task"] == column.task) & (rows["metric"] == column.metric)
    return wanted & rows["context_length"].eq(column.context_length or rows["context_length"])
