"""Evaluate one trained run.

Writes evaluation.parquet (a row a mode × task × metric × context length) and samples.parquet (a row an item).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.evaluation.quiet import offline, write_rows
from deconattn.evaluation.schema import EVALUATION, SAMPLES
from deconattn.files import read_json


def evaluate_run(
    run_folder: str | Path,
    tokenizer_folder: str | Path,
    evaluation: Mapping[str, Any],
    files: Mapping[str, str | Path],
    batch_size: int = 16,
    device: str = "auto",
) -> None:
    """Evaluate `run_folder`/model and write evaluation.parquet and samples.parquet beside it.

    Args:
        run_folder: holds spec.json and model/.
        tokenizer_folder: holds the tokenizer.json that the run was trained with.
        evaluation: `tasks` (names), `modes`, `limits` (task → items, null: all), `context_lengths` (task → list of
            tokens). "skip" and "skip_mixer" are done only for a hybrid, which has simple layers beside standard ones.
        files: task → Parquet file of its items.
        batch_size: sequences of full length in one forward pass.
        device: "auto" (a GPU if there is one), "cpu", "cuda".

    Raises:
        UserError: a file that is missing or does not fit; a task, mode or context length that cannot be.
    """
    run_folder = Path(run_folder)
    spec = read_json(run_folder / "spec.json")
    tasks = evaluation.get("tasks") or list(files)
    if missing := [task for task in tasks if task not in files]:
        raise UserError(f"no file of items is given for {', '.join(missing)}")
    offline()
    from deconattn.evaluation.harness import evaluate

    rows, samples = evaluate(
        run_folder / "model",
        tokenizer_folder,
        {task: files[task] for task in tasks},
        modes=[mode for mode in evaluation.get("modes") or ["full"] if mode == "full" or is_hybrid(spec["model"])],
        context_lengths=evaluation.get("context_lengths"),
        limits=evaluation.get("limits"),
        batch_size=batch_size,
        device=device,
        report=functools.partial(print, flush=True),
    )
    name = spec.get("run", run_folder.name)
    identity = {"run": name, "seed": spec["seed"], **{key: spec["model"].get(key) for key in ("variant", "layout")}}
    identity["model"] = spec["model"]["name"]
    write_rows(run_folder / "samples.parquet", [{"run": name, **sample} for sample in samples], SAMPLES)
    write_rows(run_folder / "evaluation.parquet", [{**identity, **row} for row in rows], EVALUATION)


def is_hybrid(model: Mapping[str, Any]) -> bool:
    """Whether a model's spec has standard layers beside simple ones."""
    return model.get("variant", "standard") != "standard" and model.get("layout", "uniform") != "uniform"
