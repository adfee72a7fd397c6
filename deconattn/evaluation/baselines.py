"""What a model has to beat on each task: a random guess, and the majority class (method.md, Evaluation)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask

from deconattn.evaluation.passes import Row, right_choices, run_task
from deconattn.evaluation.schema import BASELINES
from deconattn.evaluation.scoring import Request, Score, TokenizedLM
from deconattn.evaluation.tasks import build_task
from deconattn.result_tables import write_rows

WINDOW = 2048  # any length gives the same result


def write_baselines(
    files: Mapping[str, str | Path],
    tokenizer_folder: str | Path,
    out: Path,
    limits: Mapping[str, int | None],
    definitions: Mapping[str, str],
) -> None:
    """Write `baseline_rows`, of the items that the models are scored on, as Parquet (`schema.BASELINES`)."""
    write_rows(out, baseline_rows(files, tokenizer_folder, limits, definitions), BASELINES)


def baseline_rows(
    files: Mapping[str, str | Path],
    tokenizer_folder: str | Path | None = None,
    limits: Mapping[str, int | None] | None = None,
    definitions: Mapping[str, str] | None = None,
) -> list[Row]:
    """Rows of `random_guess` and `majority` for tasks (name → Parquet file of its items).

    random_guess of a multiple-choice task is the mean share of right choices, 1 / (number of choices) where one is
    right. Of a perplexity task, where a tokenizer is known, it is what the uniform distribution over its vocabulary V
    has: with T tokens, word_perplexity V^(T/words), bits_per_byte T·log2(V)/bytes, LAMBADA's perplexity V^(T/items)
    and acc the mean of V^(−tokens of the item).

    majority is the share of the most frequent right index. Where the harness itself puts the right choice at a
    fixed place (SciQ: always the last), places are no classes, and it is the random guess.

    Raises:
        UserError: a file that does not hold the task's items.
    """
    rows = []
    for name, path in files.items():
        task = build_task(name, path, (limits or {}).get(name), (definitions or {}).get(name))
        if task.OUTPUT_TYPE == "multiple_choice":
            rows += guesses(name, task)
        elif tokenizer_folder is not None:
            rows += uniform(name, task, tokenizer_folder)
    return rows


def guesses(name: str, task: ConfigurableTask) -> list[Row]:
    """Random guess and majority class of a multiple-choice task."""
    choices = [task.doc_to_choice(item) for item in task.eval_docs]
    right = [right_choices(task, item, own) for item, own in zip(task.eval_docs, choices, strict=True)]
    chance = sum(len(each) / len(own) for each, own in zip(right, choices, strict=True))
    golds = Counter(index for each in right for index in each)
    most_frequent = chance if isinstance(task.config.doc_to_target, int) else max(golds.values(), default=0)
    counts = {"random_guess": chance, "majority": most_frequent}
    place = {"task": name, "metric": "acc", "items": len(choices)}
    return [{"baseline": baseline, **place, "value": count / len(choices)} for baseline, count in counts.items()]


def uniform(name: str, task: ConfigurableTask, tokenizer_folder: str | Path) -> list[Row]:
    """Metrics of the uniform distribution over the vocabulary, through the harness' own scoring."""
    values, samples = run_task(UniformModel(tokenizer_folder), name, task)
    rows = [{key: value for key, value in row.items() if key != "stderr"} for row in values]
    for row in rows:
        if row["metric"] == "acc":
            row["value"] = sum(math.exp(sample["loglikelihoods"][0]) for sample in samples) / len(samples)
    return [{"baseline": "random_guess", "task": name, **row} for row in rows]


class UniformModel(TokenizedLM):
    """log p = −log V for every token, V the tokenizer's vocabulary."""

    def __init__(self, tokenizer_folder: str | Path) -> None:
        super().__init__(tokenizer_folder, WINDOW)
        self._log_vocabulary = math.log(self._tokenizer.get_vocab_size())

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Score]:
        return [(-len(continuation) * self._log_vocabulary, False) for _, _, continuation in requests]
