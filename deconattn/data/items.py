"""What each item of an evaluation set must hold to be scored; the mirror and the evaluation check it."""

from __future__ import annotations

from typing import Any, TypeGuard

import pyarrow as pa

from deconattn.data.documents import shown
from deconattn.errors import UserError

_TEXTS = {
    "arc_easy": ("question",),
    "boolq": ("question", "passage"),
    "copa": ("premise", "choice1", "choice2"),
    "piqa": ("goal", "sol1", "sol2"),
    "sciq": ("question", "distractor1", "distractor2", "distractor3", "correct_answer"),
    "rte": ("sentence1", "sentence2"),
    "hellaswag": ("activity_label", "ctx_a"),
    "wikitext": ("page",),
    "lambada_openai": ("text",),
    "heldout": ("text",),
}
_TEXTS_THAT_MAY_BE_EMPTY = {"sciq": ("support",), "hellaswag": ("ctx_b",)}
_BINARY = ("boolq", "copa", "piqa", "rte")
_UNLABELLED = "(a split without labels cannot be scored)"

Fault = tuple[str, Any, str]
"""Column, value, and what is allowed."""


def check_items(table: pa.Table, task: str, where: str) -> None:
    """Raise `UserError` for the first row that cannot be scored: file, row (from 0), column, value, what is allowed.

    Columns that the harness' definition of the task does not read may hold anything.
    """
    faults = [(row, fault) for row, item in enumerate(table.to_pylist()) if (fault := _fault(task, item))]
    if faults:
        row, (column, value, allowed) = faults[0]
        more = f" ({len(faults)} rows of {table.num_rows} are wrong)" if len(faults) > 1 else ""
        raise UserError(
            f"{where}: row {row} (from 0) of task {task}, column {column!r}: {shown(value)} is not allowed; "
            f"must be {allowed}{more}"
        )


def _fault(task: str, item: dict[str, Any]) -> Fault | None:
    for column in _TEXTS[task]:
        if not _is_text(item[column]):
            return column, item[column], "text that is not empty"
    for column in _TEXTS_THAT_MAY_BE_EMPTY.get(task, ()):
        if item[column] is None:
            return column, None, "text (it may be empty)"
    if task in _BINARY and item["label"] not in (0, 1):
        return "label", item["label"], f"0 or 1 {_UNLABELLED}"
    if task == "copa" and item["question"] not in ("cause", "effect"):
        return "question", item["question"], "'cause' or 'effect'"
    if task == "lambada_openai" and not item["text"].split(" ")[-1].strip():
        return "text", item["text"][-40:], "text that ends with a word, which is what is scored"
    if task == "hellaswag":
        return _ending_fault(item["endings"], item["label"])
    if task == "arc_easy":
        choices = item["choices"] or {}
        return _letter_fault(choices.get("text"), choices.get("label"), item["answerKey"])
    return None


def _ending_fault(endings: Any, label: Any) -> Fault | None:
    if not _are_choices(endings):
        return "endings", endings, "two texts or more, none of them empty"
    labels = [str(index) for index in range(len(endings))]
    return None if label in labels else ("label", label, f"{', '.join(labels)} {_UNLABELLED}")


def _letter_fault(texts: Any, letters: Any, answer: Any) -> Fault | None:
    if not _are_choices(texts):
        return "choices.text", texts, "two texts or more, none of them empty"
    if not _are_choices(letters) or not len(letters) == len(set(letters)) == len(texts):
        return "choices.label", letters, f"{len(texts)} different letters, one a text"
    return None if answer in letters else ("answerKey", answer, f"one of choices.label ({', '.join(letters)})")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_choices(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and len(values) > 1 and all(map(_is_text, values))
