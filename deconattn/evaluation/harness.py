"""Evaluate a trained model on tasks, modes and context lengths through lm-evaluation-harness (SPEC §6)."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.metrics import perplexity, stderr_for_metric
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate

from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.evaluation.names import DOCUMENTS, METRICS, MODES, MULTIPLE_CHOICE, check_names
from deconattn.evaluation.scoring import HarnessModel
from deconattn.evaluation.tasks import build_task

BOOTSTRAP_DRAWS = 100  # for the standard error of a perplexity; the harness seeds them
Row = dict[str, Any]


def load_model(folder: str | Path, device: str = "auto") -> Any:
    """The model of a folder written by `save_pretrained`, ready to be evaluated."""
    from deconattn.huggingface import DeconAttnForCausalLM

    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no model there (config.json is missing)")
    model: Any = DeconAttnForCausalLM.from_pretrained(folder)
    return model.to(find_device(device)).eval()


def evaluate(
    model_folder: str | Path,
    tokenizer_folder: str | Path,
    tasks: Mapping[str, str | Path],
    *,
    modes: Sequence[str] = ("full",),
    context_lengths: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 16,
    device: str = "auto",
    report: Callable[[str], None] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Evaluate the model of `model_folder`; see `evaluate_model`."""
    check_names(tasks, modes)
    model = load_model(model_folder, device)
    return evaluate_model(
        model,
        tokenizer_folder,
        tasks,
        modes=modes,
        context_lengths=context_lengths,
        limits=limits,
        batch_size=batch_size,
        report=report,
    )


def evaluate_model(
    model: Any,
    tokenizer_folder: str | Path,
    tasks: Mapping[str, str | Path],
    *,
    modes: Sequence[str] = ("full",),
    context_lengths: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 16,
    report: Callable[[str], None] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Every task at every one of its context lengths in every mode.

    Args:
        model: forward(input_ids (B, L)) gives logits (B, L, V) through `lm_head`; its `skip` is set to None, "skip"
            or "skip_mixer"; `config.max_position_embeddings` is the longest context.
        tokenizer_folder: holds tokenizer.json.
        tasks: name → Parquet file of its items.
        modes: "full", "skip" (simple layers dropped), "skip_mixer" (only their mixers dropped).
        context_lengths: task → lengths in tokens (default: the longest that the model takes).
        limits: task → first items to score (default, null: all).
        batch_size: sequences of full length in one forward pass.
        report: is given one plain line a task, mode and context length.

    Returns:
        rows (mode, task, metric, context_length, value, stderr, items, limit) and samples (mode, task,
        context_length, item, target, prediction, correct, loglikelihoods, metric, value). A value that could not be
        measured, because the model's numbers are not finite, is None (a perplexity that overflows is inf), and
        `items` counts the items that could be scored.

    Raises:
        UserError: unknown task or mode, a file that does not hold the task's items, a context length that the model
            does not take.
    """
    check_names(tasks, modes)
    longest = model.config.max_position_embeddings
    lengths = {task: list((context_lengths or {}).get(task) or [longest]) for task in tasks}
    for task, wanted in lengths.items():
        for length in wanted:
            if not 1 <= length <= longest:
                raise UserError(
                    f"{task}: context length {length} is not within the model's positions (allowed: 1 to {longest})"
                )
    limits = {task: (limits or {}).get(task) for task in tasks}
    loaded = {task: build_task(task, path, limits[task]) for task, path in tasks.items()}
    lm = HarnessModel(model, tokenizer_folder, longest, batch_size)
    rows: list[Row] = []
    samples: list[Row] = []
    for mode in MODES:
        if mode not in modes:
            continue
        model.skip = None if mode == "full" else mode
        for name, task in loaded.items():
            for length in lengths[name]:
                lm.max_length = length
                values, items = run_task(lm, name, task)
                place = {"mode": mode, "task": name, "context_length": length}
                rows += [{**place, **value, "limit": limits[name]} for value in values]
                samples += [{**place, **item} for item in items]
                if report:
                    report(line(place, values, lm.shortened))
    model.skip = None
    return rows, samples


def run_task(lm: LM, name: str, task: ConfigurableTask) -> tuple[list[Row], list[Row]]:
    """One pass of the harness over a task: its metrics, and a row an item."""
    found = harness_evaluate(lm, {"tasks": {name: task}, "groups": {}}, bootstrap_iters=BOOTSTRAP_DRAWS)
    metrics, logged = found["results"][name], sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    samples = [item_row(name, task, sample) for sample in logged]
    scored = [sample for sample in samples if sample["value"] is not None]
    values = []
    for metric in METRICS[name]:
        value, stderr = metrics[f"{metric},none"], metrics[f"{metric}_stderr,none"]
        if metric == "perplexity":
            stderr = bootstrap([sample["perplexity"] for sample in logged])
        elif metric == "acc" and len(scored) < len(samples):
            value = stderr = None  # an argmax over values that are not numbers says nothing
        values.append({"metric": metric, "value": number(value), "stderr": number(stderr), "items": len(scored)})
    return values, samples


def item_row(name: str, task: ConfigurableTask, sample: Mapping[str, Any]) -> Row:
    """One item: what was asked for, what was chosen, and the log-likelihoods (nats) behind it.

    `metric` is the task's acc, or the word perplexity of the one document; `value` is None where a log-likelihood
    is not a number.
    """
    responses = sample["filtered_resps"]
    row: Row = {"item": sample["doc_id"], "target": None, "prediction": None, "correct": None, "value": None}
    if name in DOCUMENTS:
        likelihoods = [float(responses[0])]
        row["metric"] = "word_perplexity"
        if measured(likelihoods):
            row["value"] = exponential(-likelihoods[0] / sample["word_perplexity"][1])
    else:
        likelihoods = [float(response[0]) for response in responses]
        choices = task.doc_to_choice(sample["doc"]) if name in MULTIPLE_CHOICE else None
        row["target"] = choices[gold_index(sample["target"], choices)] if choices else sample["target"]
        row["metric"] = "acc"
        if measured(likelihoods):
            row["value"], row["correct"] = float(sample["acc"]), bool(sample["acc"])
            row["prediction"] = choices[likelihoods.index(max(likelihoods))] if choices else None
    return {**row, "loglikelihoods": [number(value) for value in likelihoods]}


def gold_index(target: Any, choices: Sequence[str]) -> int:
    """The right choice, which the harness' definitions name by its index or by its text."""
    return target if isinstance(target, int) else choices.index(target)


def measured(likelihoods: Sequence[float]) -> bool:
    """Whether log-likelihoods can be compared: all are numbers, and one at least is finite."""
    return not any(math.isnan(value) for value in likelihoods) and any(math.isfinite(value) for value in likelihoods)


def exponential(value: float) -> float:
    """e^value, inf where it overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def bootstrap(loglikelihoods: list[float]) -> float | None:
    """The harness' bootstrapped standard error of a perplexity, without its process pool and its printing."""
    os.environ["DISABLE_MULTIPROC"] = "1"
    estimate = stderr_for_metric(perplexity, BOOTSTRAP_DRAWS)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return estimate(loglikelihoods) if len(loglikelihoods) > 1 else None
        except OverflowError:
            return None


def number(value: Any) -> float | None:
    """A float, or None for what the harness could not compute (it says "N/A", or NaN)."""
    return None if value is None or isinstance(value, str) or math.isnan(value) else float(value)


def line(place: Mapping[str, Any], values: Sequence[Row], shortened: int) -> str:
    """What one pass found, in words."""
    found = ", ".join(f"{v['metric']} {'none' if v['value'] is None else format(v['value'], '.4g')}" for v in values)
    cut = f", {shortened} requests cut to the context" if shortened else ""
    where = f"{place['task']} ({place['mode']}, context {place['context_length']})"
    return f"{where}: {found}; {values[0]['items']} items{cut}"
