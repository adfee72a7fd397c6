"""What a model has to beat on each task: a random guess, and the majority class (SPEC §6)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deconattn.evaluation.names import MULTIPLE_CHOICE, check_names
from deconattn.evaluation.quiet import offline, write_rows
from deconattn.evaluation.schema import BASELINES

Row = dict[str, Any]


def write_baselines(
    tasks: Mapping[str, str | Path],
    tokenizer_folder: str | Path | None,
    out: str | Path,
    limits: Mapping[str, int | None] | None = None,
) -> None:
    """Write `baseline_rows`, of the items that the models are scored on, as Parquet (baseline, task, metric, value, items)."""
    write_rows(Path(out), baseline_rows(tasks, tokenizer_folder, limits), BASELINES)


def baseline_rows(
    tasks: Mapping[str, str | Path],
    tokenizer_folder: str | Path | None = None,
    limits: Mapping[str, int | None] | None = None,
) -> list[Row]:
    """Rows of `random_guess` and `majority` for tasks (name → Parquet file of its items).

    random_guess of a multiple-choice task is the mean of 1 / (number of choices). Of a perplexity task, where a
    tokenizer is known, it is what the uniform distribution over its vocabulary V has: with T tokens,
    word_perplexity V^(T/words), bits_per_byte T·log2(V)/bytes, LAMBADA's perplexity V^(T/items) and acc the mean
    of V^(−tokens of the item).

    majority is the share of the most frequent right index. Where the harness itself puts the right choice at a
    fixed place (SciQ: always the last), places are no classes, and it is the random guess.

    Raises:
        UserError: unknown task, or a file that does not hold its items.
    """
    check_names(tasks)
    offline()
    rows = []
    for name, path in tasks.items():
        limit = (limits or {}).get(name)
        if name in MULTIPLE_CHOICE:
            rows += guesses(name, path, limit)
        elif tokenizer_folder is not None:
            rows += uniform(name, path, tokenizer_folder, limit)
    return rows


def guesses(name: str, path: str | Path, limit: int | None) -> list[Row]:
    """Random guess and majority class of a multiple-choice task."""
    from deconattn.evaluation.passes import gold_index
    from deconattn.evaluation.tasks import build_task

    task = build_task(name, path, limit)
    golds: Counter[int] = Counter()
    chance = 0.0
    for item in task.eval_docs:
        choices = task.doc_to_choice(item)
        golds[gold_index(task.doc_to_target(item), choices)] += 1
        chance += 1 / len(choices)
    items = golds.total()
    most_frequent = chance if isinstance(task.config.doc_to_target, int) else golds.most_common(1)[0][1]
    return [
        row("random_guess", name, "acc", chance / items, items),
        row("majority", name, "acc", most_frequent / items, items),
    ]


def uniform(name: str, path: str | Path, tokenizer_folder: str | Path, limit: int | None) -> list[Row]:
    """Metrics of the uniform distribution over the vocabulary, through the harness' own scoring."""
    from deconattn.evaluation.passes import run_task
    from deconattn.evaluation.tasks import build_task
    from deconattn.evaluation.uniform import UniformModel

    values, samples = run_task(UniformModel(tokenizer_folder), name, build_task(name, path, limit))
    chance = sum(math.exp(sample["loglikelihoods"][0]) for sample in samples) / len(samples)
    return [
        row(
            "random_guess",
            name,
            found["metric"],
            chance if found["metric"] == "acc" else found["value"],
            found["items"],
        )
        for found in values
    ]


def row(baseline: str, task: str, metric: str, value: float, items: int) -> Row:
    """One row of baselines.parquet."""
    return {"baseline": baseline, "task": task, "metric": metric, "value": value, "items": items}
