"""Evaluate a trained run on tasks, modes and context lengths through lm-evaluation-harness (method.md, Evaluation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.evaluation.modes import in_mode
from deconattn.evaluation.passes import Row, run_task
from deconattn.evaluation.schema import EVALUATION, SAMPLES
from deconattn.evaluation.scoring import HarnessModel
from deconattn.evaluation.tasks import build_task
from deconattn.files import read_json
from deconattn.load import load_language_model
from deconattn.pieces import Keep, make_all
from deconattn.result_tables import run_columns, write_rows


def evaluate_run(
    run_folder: Path,
    tokenizer_folder: str | Path,
    evaluation: Mapping[str, Any],
    files: Mapping[str, str | Path],
    batch_size: int,
    device: str,
    out_folder: Path,
    keep: Keep = make_all,
) -> None:
    """Write evaluation.parquet (a row per mode, task, context length and metric) and samples.parquet (a row per item).

    Args:
        run_folder: holds spec.json and model/.
        tokenizer_folder: holds the tokenizer.json that the run was trained with.
        evaluation: `tasks`, `modes`, `limits`, `context_lengths`, `definitions`, `precision`; see `evaluate_model`.
        files: task → Parquet file of its items.
        batch_size: sequences of full length in one forward pass.
        device: "auto" (a GPU if there is one), "cpu", "cuda".
        out_folder: where to write.
        keep: as for `evaluate_model`.

    Raises:
        UserError: a file that is missing or does not fit.
    """
    rows, samples = evaluate_model(
        load_language_model(run_folder / "model", device),
        tokenizer_folder,
        {task: files[task] for task in evaluation["tasks"]},
        modes=evaluation["modes"],
        context_lengths=evaluation["context_lengths"],
        limits=evaluation["limits"],
        definitions=evaluation.get("definitions"),
        precision=evaluation["precision"],
        batch_size=batch_size,
        keep=keep,
    )
    identity = run_columns(read_json(run_folder / "spec.json"))
    run = identity["run"]
    write_rows(out_folder / "samples.parquet", [{"run": run, **sample} for sample in samples], SAMPLES)
    write_rows(out_folder / "evaluation.parquet", [{**identity, **row} for row in rows], EVALUATION)


def evaluate_model(
    model: Any,
    tokenizer_folder: str | Path,
    files: Mapping[str, str | Path],
    *,
    modes: Sequence[str] = ("full",),
    context_lengths: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int | None] | None = None,
    definitions: Mapping[str, str] | None = None,
    precision: str = "float32",
    batch_size: int = 16,
    keep: Keep = make_all,
) -> tuple[list[Row], list[Row]]:
    """Score every task in every mode at each of its context lengths, and print a line for each.

    Args:
        model: `final_hidden(input_ids (B, L))` returns the input of `lm_head`; see `HarnessModel` and `in_mode`.
        tokenizer_folder: holds tokenizer.json.
        files: task → Parquet file of its items.
        modes: "full", "skip" (relaxed layers left out), "skip_mixer" (only their mixers left out), "reweighted"
            (weights of attention re-weighted, of the variants in `mixers.REWEIGHTED`).
        context_lengths: task → lengths in tokens (default: `config.max_position_embeddings`). A model without a side stream
            reads longer ones, too: its rotary positions go on.
        limits: task → number of items to score, from the first on (default, None: all).
        definitions: task → path of its YAML, of tasks that are not lm-eval's.
        precision: "float32", or "bf16" by autocast.
        batch_size: sequences of full length in one forward pass.
        keep: where the scores of each task, mode and context length are kept, so that a stopped evaluation goes on.

    Returns:
        Rows of `schema.EVALUATION` and `schema.SAMPLES`, without the columns that name the run.

    Raises:
        UserError: a file that does not hold the task's items, or a tokenizer that is not the model's.
    """
    longest = model.config.max_position_embeddings
    limits = {task: (limits or {}).get(task) for task in files}
    own = definitions or {}
    tasks = {task: build_task(task, path, limits[task], own.get(task)) for task, path in files.items()}
    lm = HarnessModel(model, tokenizer_folder, longest, batch_size, precision)
    rows: list[Row] = []
    samples: list[Row] = []
    passes = [
        (mode, name, length)
        for mode in modes
        for name in tasks
        for length in (context_lengths or {}).get(name, [longest])
    ]
    for mode, name, length in passes:
        lm.max_length, lm.shortened = length, 0
        try:
            with in_mode(model, mode):
                values, items = keep(f"{mode}-{name}-{length}", partial(run_task, lm, name, tasks[name]))
        except UserError as error:
            raise UserError(f"{files[name]}: {error}") from None
        place = {"mode": mode, "task": name, "context_length": length}
        rows += [{**place, **value, "limit": limits[name]} for value in values]
        samples += [{**place, **item} for item in items]
        print(f"{name} ({mode}, context {length}): {in_words(values, lm.shortened)}", flush=True)
    return rows, samples


def in_words(values: Sequence[Row], shortened: int) -> str:
    """The metrics of one pass."""
    found = ", ".join(f"{v['metric']} {'none' if v['value'] is None else format(v['value'], '.4g')}" for v in values)
    cut = f", {shortened} requests cut to the context" if shortened else ""
    return f"{found}; {values[0]['items']} items{cut}"
