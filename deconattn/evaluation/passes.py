"""One pass of lm-evaluation-harness over a task, with any model: its metrics, and a row per item."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.metrics import bootstrap_stderr, perplexity
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate

from deconattn.evaluation.scoring import TokenizedLM
from deconattn.evaluation.tasks import overflow_is_infinite

BOOTSTRAP_DRAWS = 100  # for the standard error of a perplexity; the harness seeds them
OF_LOSSES = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
"""Metrics that are a mean loss; others compare choices."""
Row = dict[str, Any]


def run_task(lm: TokenizedLM, name: str, task: ConfigurableTask) -> tuple[list[Row], list[Row]]:
    """Score all items of a task: a row for each metric of its definition, in that order, and a row per item."""
    found = harness_evaluate(lm, {"tasks": {name: task}, "groups": {}}, bootstrap_iters=BOOTSTRAP_DRAWS)
    metrics, logged = found["results"][name], found["samples"][name]
    by_filter = logged[0]["filter"]  # where a definition filters answers in several ways: the first of them
    logged = sorted((each for each in logged if each["filter"] == by_filter), key=lambda sample: sample["doc_id"])
    samples = [item_row(task, sample) for sample in logged]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        for sample, windows in zip(samples, lm.windows_nll, strict=True):
            sample["window_nlls"] = [*map(number, windows)]
    scored = [sample for sample in samples if sample["value"] is not None]
    values = []
    for metric in (metric for metric in task.aggregation() if f"{metric},{by_filter}" in metrics):
        value, stderr = metrics[f"{metric},{by_filter}"], metrics.get(f"{metric}_stderr,{by_filter}")
        if metric == "perplexity":
            stderr = perplexity_stderr([sample["perplexity"] for sample in logged])
        elif metric not in OF_LOSSES and len(scored) < len(samples):
            value = stderr = None  # an argmax over values that are not numbers says nothing
        values.append({"metric": metric, "value": number(value), "stderr": number(stderr), "items": len(scored)})
    return values, samples


def item_row(task: ConfigurableTask, sample: Mapping[str, Any]) -> Row:
    """One item: the right choice, the model's, and the log-likelihoods (nats) behind it (`schema.SAMPLES`).

    `value` and what is compared are None where a log-likelihood is not a number.
    """
    kind, responses, requests = task.OUTPUT_TYPE, sample["filtered_resps"], sample["arguments"]
    row: Row = {"item": sample["doc_id"], "document": sample["doc_hash"][:16]}
    if kind == "loglikelihood_rolling":
        row |= _text_row(task, sample, float(responses[0]))
    elif kind == "loglikelihood":
        (likelihood, greedy), text = responses[0], requests[0][1]
        row |= {"target": sample["target"], "metric": "acc", **_scored(float(likelihood), text)}
        row["loglikelihoods"] = [float(likelihood)]
        if measured(row["loglikelihoods"]):
            row |= {"value": float(sample.get("acc", greedy)), "correct": bool(sample.get("acc", greedy))}
    else:
        row |= _choice_row(task, sample)
    row["loglikelihoods"] = [number(value) for value in row["loglikelihoods"]]
    return {"target": None, "prediction": None, "correct": None, "value": None, **row}


def _text_row(task: ConfigurableTask, sample: Mapping[str, Any], likelihood: float) -> Row:
    """Of a whole text; words and bytes as the harness counts them."""
    text = sample["arguments"][0][0]
    words = sample["word_perplexity"][1] if "word_perplexity" in sample else task.count_words(text)
    size = sample["byte_perplexity"][1] if "byte_perplexity" in sample else task.count_bytes(text)
    row = {"metric": "word_perplexity", "nll": number(-likelihood), "words": words, "bytes": size}
    if measured([likelihood]):
        row["value"] = overflow_is_infinite(math.exp)(-likelihood / words)
    return {**row, "loglikelihoods": [likelihood]}


def _choice_row(task: ConfigurableTask, sample: Mapping[str, Any]) -> Row:
    """Of multiple choice: what is right and predicted, and the loss of the right choice (the first, where several are)."""
    choices = task.doc_to_choice(sample["doc"])
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]][: len(choices)]
    right = right_choices(task, sample["doc"], choices)
    row: Row = {"metric": "acc", "loglikelihoods": likelihoods}
    if right:
        row |= {"target": choices[right[0]], **_scored(likelihoods[right[0]], sample["arguments"][right[0]][1])}
    if measured(likelihoods):
        best = int(np.argmax(likelihoods))
        correct = best in right
        by_length = int(np.argmax(np.divide(likelihoods, [max(1, len(choice)) for choice in choices])))
        row |= {"prediction": choices[best], "correct": correct, "correct_norm": by_length in right}
        row["value"] = float(sample.get("acc", correct))
    return row


def _scored(likelihood: float, text: str) -> Row:
    """Loss and length of what was scored behind a context."""
    return {"nll": number(-likelihood), "words": len(text.split()), "bytes": len(text.encode())}


def right_choices(task: ConfigurableTask, item: Mapping[str, Any], choices: Sequence[str]) -> list[int]:
    """Indices of the right choices, which a definition names by their index or text; none where it names none that is there."""
    named = task.doc_to_text(item) if task.multiple_input else task.doc_to_target(item)
    found = [
        choices.index(each) if isinstance(each, str) and each in choices else each
        for each in (named if isinstance(named, list) else [named])
    ]
    return [each for each in found if isinstance(each, int) and 0 <= each < len(choices)]


def measured(likelihoods: Sequence[float]) -> bool:
    """Whether log-likelihoods can be compared: all are numbers, and at least one is finite."""
    return not any(math.isnan(value) for value in likelihoods) and any(math.isfinite(value) for value in likelihoods)


def perplexity_stderr(loglikelihoods: list[float]) -> float | None:
    """The harness' bootstrap, without its processes and printing; the harness refuses it to a perplexity that may overflow."""
    if len(loglikelihoods) < 2:
        return None
    os.environ["DISABLE_MULTIPROC"] = "1"
    with contextlib.redirect_stdout(io.StringIO()):
        bootstrap = overflow_is_infinite(bootstrap_stderr)
        return bootstrap(overflow_is_infinite(perplexity), loglikelihoods, BOOTSTRAP_DRAWS)


def number(value: Any) -> float | None:
    """A float, or None for what the harness could not compute ("N/A", or NaN)."""
    return None if value is None or isinstance(value, str) or math.isnan(value) else float(value)
