"""Gather what `measure` left of several models into the tables that Tables 5 to 8 and `figure_costs` are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from deconattn.analysis.costs_schema import COSTS, DIFFERENCES
from deconattn.errors import UserError
from deconattn.experiment.code import code_digest
from deconattn.files import write_json
from deconattn.report import schema
from deconattn.report.sums import sums_of


def collect_costs(files: Sequence[Path], out_folder: Path) -> tuple[Path, Path]:
    """Write `<out_folder>/tables/{costs,cost_differences}.parquet` and their record; returns the two paths.

    Args:
        files: the measurements of a model each, without `.parquet`; those that are not there are passed over.
        out_folder: the report's folder, `results/reports/<name>`.

    Raises:
        UserError: a file that is broken, or a model that two files have.
    """
    costs, differences = [], []
    models: dict[str, Path] = {}
    for file in map(Path, files):
        path = file.with_name(f"{file.name}.parquet")
        if not path.is_file():
            continue
        costs.append(schema.read_table(path, COSTS))
        differences.append(schema.read_table(file.with_name(f"{file.name}-differences.parquet"), DIFFERENCES))
        for model in costs[-1]["model"].unique():
            if model in models:
                raise UserError(f"{path}: model {model!r} is also in {models[model]}; name one")
            models[model] = path
    tables = Path(out_folder) / "tables"
    written = (
        schema.write_table(_stack(costs), COSTS, tables / "costs.parquet"),
        schema.write_table(_stack(differences), DIFFERENCES, tables / "cost_differences.parquet"),
    )
    made = {"code": code_digest("deconattn.report.collect_costs"), "measured": sums_of(files)}
    write_json(tables / "aggregate_costs.json", made)
    return written


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # An empty frame has columns of no type, which would make those of the others floats.
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
