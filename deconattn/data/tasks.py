"""The items of evaluation sets as tables: columns and licences of the paper's nine, and what a table of items must be."""

from __future__ import annotations

import pyarrow as pa

from deconattn.data.items import check_items
from deconattn.errors import UserError

_TEXT, _TEXTS, _INT, _LONG = pa.string(), pa.list_(pa.string()), pa.int32(), pa.int64()

COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "arc_easy": {
        "id": _TEXT,
        "question": _TEXT,
        "choices": pa.struct({"text": _TEXTS, "label": _TEXTS}),
        "answerKey": _TEXT,
    },
    "boolq": {"question": _TEXT, "passage": _TEXT, "idx": _INT, "label": _LONG},
    "copa": {"premise": _TEXT, "choice1": _TEXT, "choice2": _TEXT, "question": _TEXT, "idx": _INT, "label": _LONG},
    "piqa": {"goal": _TEXT, "sol1": _TEXT, "sol2": _TEXT, "label": _LONG},
    "sciq": dict.fromkeys(
        ("question", "distractor3", "distractor1", "distractor2", "correct_answer", "support"), _TEXT
    ),
    "rte": {"sentence1": _TEXT, "sentence2": _TEXT, "label": _LONG, "idx": _INT},
    "hellaswag": {
        "ind": _INT,
        **dict.fromkeys(("activity_label", "ctx_a", "ctx_b", "ctx"), _TEXT),
        "endings": _TEXTS,
        **dict.fromkeys(("source_id", "split", "split_type", "label"), _TEXT),
    },
    "wikitext": {"page": _TEXT},
    "lambada_openai": {"text": _TEXT},
}

LICENCES = {
    "arc_easy": "CC BY-SA 4.0",
    "boolq": "CC BY-SA 3.0",
    "copa": "BSD-2-Clause",
    "piqa": "AFL-3.0",
    "sciq": "CC BY-NC 3.0",
    "rte": "research use",
    "hellaswag": "MIT",
    "wikitext": "CC BY-SA 3.0",
    "lambada_openai": "MIT",
}


def columns_of(task: str) -> dict[str, pa.DataType] | None:
    """The columns that a task's items have; None where any may be read."""
    return {"text": _TEXT} if task == "heldout" else COLUMNS.get(task)


def conform(table: pa.Table, task: str, where: str) -> pa.Table:
    """Exactly the task's columns, in order, with their types, and items that can be scored; `where` names the source.

    `heldout`, which the harness does not have, has the column `text`. Of a task that is not in `COLUMNS`, only its definition
    tells which columns it reads: all are kept as they are.
    Raises `UserError` for a missing column, no rows, or a row that cannot be scored.
    """
    columns = columns_of(task) or {}
    if missing := [name for name in columns if name not in table.column_names]:
        raise UserError(f"{where}: task {task} lacks the column {missing[0]!r} (needed: {', '.join(columns)})")
    if not table.num_rows:
        raise UserError(f"{where}: no rows (items of {task})")
    if not columns:
        return table
    try:
        table = table.select(list(columns)).cast(pa.schema(list(columns.items())))
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{where}: task {task} has a column of another type ({str(error).splitlines()[0]})") from error
    check_items(table, task, where)
    return table
