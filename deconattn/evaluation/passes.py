"""One pass of lm-evaluation-harness over a task, with any model: its metrics, and a row an item."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.metrics import perplexity, stderr_for_metric
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate

from deconattn.evaluation.names import DOCUMENTS, METRICS, MULTIPLE_CHOICE

BOOTSTRAP_DRAWS = 100  # for the standard error of a perplexity; the harness seeds them
Row = dict[str, Any]


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
