"""The paper's own results (arXiv:2510.11602v1, Tables 1 to 4), in the units and names of this project."""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import resources

import pandas as pd

from deconattn.report.names import BASELINES, NLU_TASKS, Column
from deconattn.report.results import MISSING, Cell

PAPER = "arXiv:2510.11602v1"
TABLE_DESCRIPTIONS: dict[str, str] = {
    "table1": "500m models, 15B tokens of SlimPajama",
    "table2": "1.7b models, 45B tokens of SlimPajama",
    "table3": "500m models with grouped-query attention, 15B tokens of SlimPajama",
    "table4": "500m models, 15B tokens of SlimPajama",
}


@lru_cache(maxsize=1)
def _read() -> pd.DataFrame:
    text = resources.files("deconattn.report").joinpath("published_results.csv").read_text()
    frame = pd.read_csv(io.StringIO(text))
    percent = frame["metric"] == "acc"
    frame["value"] = frame["value"].where(~percent, frame["value"] / 100)
    frame["stderr"] = frame["stderr"].where(~percent, frame["stderr"] / 100)
    frame["mode"] = frame["layout"].eq("hybrid_skip").map({True: "skip", False: "full"})
    frame["layout"] = frame["layout"].replace({"hybrid": "even", "hybrid_skip": "even", "none": "uniform"})
    frame["exhibit"] = "table" + frame["table"].astype(str)
    names = ["exhibit", "size", "heads", "variant", "layout", "mode", "task", "metric", "context_length"]
    return frame[[*names, "value", "stderr"]]


def load_published(exhibit: str | None = None) -> pd.DataFrame:
    """The published values, one a row, of one exhibit (`table1` … `table4`) or of all.

    Columns: exhibit, size, heads, variant (the two baselines stand there too), layout (`uniform`, `even`), mode
    (`full`, `skip`), task (`nlu_avg` is the paper's own average), metric, context_length, value, stderr.
    Accuracies are fractions of 1, as ours are; the paper prints per cent. Baselines have stderr 0 in the paper.
    """
    frame = _read()
    return (frame if exhibit is None else frame[frame["exhibit"] == exhibit]).reset_index(drop=True).copy()


def published_cells(
    published: pd.DataFrame, variant: str, layout: str, mode: str, columns: list[Column]
) -> dict[str, Cell]:
    """The paper's cells of one row by column key; empty if the paper does not have the row, `missing` without a value.

    A baseline's standard error is printed as 0 there and is left out.
    """
    rows = published[(published["variant"] == variant) & (published["layout"] == layout) & (published["mode"] == mode)]
    if rows.empty:
        return {}
    cells = {}
    for column in columns:
        found = rows[_rows_of(rows, column)]
        if found.empty:
            cells[column.key] = MISSING
            continue
        value, error = found["value"].iloc[0], found["stderr"].iloc[0]
        known = not pd.isna(error) and variant not in BASELINES
        cells[column.key] = Cell(
            "ok", float(value), float(error) if known else None, "items" if known else None,
            tasks=len(NLU_TASKS) if column.task == "nlu_avg" else None,
            context_length=int(found["context_length"].iloc[0]),
        )  # fmt: skip
    return cells


def published_has(published: pd.DataFrame, column: Column) -> bool:
    """Whether the paper has any value for a column."""
    return bool(_rows_of(published, column).any())


def _rows_of(published: pd.DataFrame, column: Column) -> pd.Series:
    wanted = (published["task"] == column.task) & (published["metric"] == column.metric)
    if column.context_length is not None:
        wanted &= published["context_length"] == column.context_length
    return wanted
