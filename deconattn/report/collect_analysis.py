"""Gather what the analysis of the runs left into the tables that figures 1, 2, 6, 7 and 8 are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from deconattn.analysis.schema import ATTENTION, SCORES, reason_of
from deconattn.errors import UserError
from deconattn.files import read_json
from deconattn.report import schema

NOT_ANALYSED = "not analysed yet"


def collect_analysis(
    run_folders: Sequence[Path], out_folder: Path, notes: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Write `<out_folder>/tables/{attention,scores,analysis_gaps}.parquet` from the runs of one configuration.

    Args:
        run_folders: the folders of all the runs that belong to the report, whether they exist yet or not.
        out_folder: the report's folder, `results/reports/<name>`.
        notes: run → what is to be said of it wherever it is shown ("": nothing).

    A run that is not trained is a gap of `collect`'s table and no row here; one that is trained but not analysed, or
    whose maps are not finite, is a row of `analysis_gaps`. Returns these gaps, one line each.
    Raises: `UserError` for a file that is broken or holds values of another run.
    """
    attention, scores, gaps = [], [], []
    for folder in map(Path, run_folders):
        if not (folder / "done.json").is_file():
            continue
        if notes.get(folder.name):
            gaps.append({**_identity(folder), "stage": "stale", "reason": notes[folder.name]})
        found = _read(folder)
        if isinstance(found, str):
            gaps.append({**_identity(folder), "stage": "analyse", "reason": found})
        else:
            attention.append(found[0])
            scores.append(found[1])
    tables = Path(out_folder) / "tables"
    schema.write_table(_stack(attention), ATTENTION, tables / "attention.parquet")
    schema.write_table(_stack(scores), SCORES, tables / "scores.parquet")
    schema.write_table(pd.DataFrame(gaps), schema.GAPS, tables / "analysis_gaps.parquet")
    return [f"{gap['run']}: {gap['reason']}" for gap in gaps]


def _read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """Indicators and scores of a trained run, or why it has none (for `mlp` alone there is no reason)."""
    paths = folder / "attention.parquet", folder / "scores.parquet"
    if not all(path.is_file() for path in paths):
        return NOT_ANALYSED
    attention, scores = schema.read_table(paths[0], ATTENTION), schema.read_table(paths[1], SCORES)
    for path, frame in zip(paths, (attention, scores), strict=True):
        strangers = set(frame["run"]) - {folder.name}
        if strangers:
            raise UserError(f"{path}: holds values of another run ({sorted(strangers)[0]})")
    return reason_of(paths[0]) or (attention, scores)


def _identity(folder: Path) -> dict[str, Any]:
    spec = read_json(folder / "spec.json")
    try:
        model = spec["model"]
        identity = {"model": model["name"], "variant": model["variant"], "layout": model["layout"]}
        return {"run": folder.name, **identity, "seed": int(spec["seed"])}
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'spec.json'}: not a run's spec, {error} is missing") from None


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
