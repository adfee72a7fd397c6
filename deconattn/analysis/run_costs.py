"""What each trained run costs, by the formulas of its variant: FLOPs of its training, and the state that decoding keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from deconattn.analysis.schema import RUN_COSTS
from deconattn.config import ModelConfig
from deconattn.costs import state_bytes, training_flops
from deconattn.files import read_json
from deconattn.result_tables import run_columns, write_rows

BF16 = 2  # bytes a number


def write_run_costs(runs: Iterable[Path], context_lengths: Mapping[str, int], out: Path) -> None:
    """Write a row of `schema.RUN_COSTS` for each run whose folder is given: all that it was to train for, diverged or not.

    context_lengths: model → length of its training and of the sequence whose state is counted, in tokens.
    """
    rows = []
    for folder in runs:
        spec, config = read_json(folder / "spec.json"), ModelConfig.from_dict(read_json(folder / "model/config.json"))
        training, length = spec["training"], context_lengths[spec["model"]["name"]]
        a_step = training_flops(config, training["sequences_per_step"], length)
        rows.append(
            {
                **run_columns(spec),
                "run": folder.name,  # an adopted run has another name in its files
                "training_flops": float(training["steps"] * a_step),
                "state_bytes": state_bytes(config, 1, length, BF16),
                "context_length": length,
            }
        )
    write_rows(out, rows, RUN_COSTS)
