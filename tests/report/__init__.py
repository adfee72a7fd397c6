"""What tests of the report share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from deconattn.report import schema
from deconattn.report.results import Results

Rows = list[dict[str, Any]]


def in_memory(
    runs: Rows, evaluation: Rows, baselines: Rows, samples: dict[tuple[str, str, str], pd.DataFrame]
) -> Results:
    """Results that no file holds; `samples`: (run, mode, task) → rows."""
    found = Results(Path("in memory"))
    found.__dict__ |= {
        "all_runs": pd.DataFrame(runs).reindex(columns=schema.RUNS.names),
        "evaluation": pd.DataFrame(evaluation).reindex(columns=schema.EVALUATION.names),
        "baselines": pd.DataFrame(baselines),
        "samples": samples,
    }
    return found
