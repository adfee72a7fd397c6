"""What `collect_costs` wrote, as the exhibits about costs read it: nothing of trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from deconattn.analysis.costs_schema import COSTS, DIFFERENCES
from deconattn.report import schema
from deconattn.report.names import in_order

PLACE = ["variant", "batch", "length"]


class CostResults:
    """Measured costs and differences from the printed ones; `runs` is empty, as costs are those of a shape."""

    READS: ClassVar[tuple[str, ...]] = ("costs", "cost_differences")

    def __init__(self, folder: Path) -> None:
        """Read the tables of `folder`; raises `UserError` naming the first that is absent or broken."""
        self.folder = Path(folder)
        self.costs = schema.read_table(self.folder / "costs.parquet", COSTS)
        self.differences = schema.read_table(self.folder / "cost_differences.parquet", DIFFERENCES)
        self.runs = pd.DataFrame(columns=schema.RUNS.names)

    def of(self, model: str) -> pd.DataFrame:
        """The rows of one model; none if it was not measured yet."""
        return self.costs[self.costs["model"] == model]

    def variants(self, model: str) -> list[str]:
        return in_order(self.of(model)["variant"])

    def gaps(self, model: str) -> list[str]:
        """One line for a model that is not measured, or for each variant and reason that some sizes were left out for."""
        rows = self.of(model)
        if rows.empty:
            return [f"{model}: not measured yet"]
        missing = rows[rows["reason"].notna()]
        return [
            f"{row['variant']} B = {row['batch']} L = {row['length']:,}: not measured, {row['reason']}"
            for _, row in missing.iterrows()
        ]

    def hardware(self, model: str) -> str:
        """Where a model was measured, in words."""
        row = self.of(model).iloc[0]
        threads = "" if pd.isna(row["threads"]) else f", {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        return f"{row['device']}{threads}, torch {row['torch']}"

    def shape(self, model: str) -> str:
        """The shape of a model's mixers, in words."""
        row = self.of(model).iloc[0]
        grouped = "" if row["heads"] == row["key_value_heads"] else f", {row['key_value_heads']} key-value heads"
        return f"{model}: d = {row['hidden_size']:,}, {row['heads']} heads{grouped}"
