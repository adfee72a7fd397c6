"""Evaluation sets of a hub and a folder; items that cannot be scored are refused: file, row, column, value, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deconattn.data import mirror
from deconattn.data.definitions import definition
from deconattn.data.tasks import COLUMNS
from deconattn.errors import UserError
from deconattn.evaluation.tasks import build_task
from deconattn.files import read_json

ARC = {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}
GOOD: dict[str, dict[str, Any]] = {
    "arc_easy": {"id": "x", "question": "Why?", "choices": ARC, "answerKey": "B"},
    "boolq": {"question": "is it", "passage": "It is.", "idx": 0, "label": 1},
    "copa": {"premise": "It rained.", "choice1": "A.", "choice2": "B.", "question": "cause", "idx": 0, "label": 0},
    "piqa": {"goal": "sit", "sol1": "chair", "sol2": "pond", "label": 0},
    "sciq": {"question": "q", "distractor3": "a", "distractor1": "b", "distractor2": "c", "correct_answer": "d", "support": ""},
    "rte": {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 3},
    "hellaswag": {
        "ind": 1, "activity_label": "Run", "ctx_a": "He", "ctx_b": "", "ctx": "He", "endings": ["a", "b", "c", "d"],
        "source_id": "s", "split": "val", "split_type": "x", "label": "3",
    },
    "wikitext": {"page": "= A =\n"},
    "lambada_openai": {"text": "he came home"},
}  # fmt: skip
BAD = [
    *((task, "label", value, "0 or 1") for task in ("boolq", "copa", "piqa", "rte") for value in (-1, None, 2, 7)),
    *((task, column, value, "text that is not empty")
      for task, columns in {
          "arc_easy": ["question"], "boolq": ["question", "passage"], "copa": ["premise", "choice1", "choice2"],
          "piqa": ["goal", "sol1", "sol2"], "rte": ["sentence1", "sentence2"], "hellaswag": ["activity_label", "ctx_a"],
          "sciq": ["question", "distractor1", "distractor2", "distractor3", "correct_answer"], "wikitext": ["page"],
          "lambada_openai": ["text"],
      }.items() for column in columns for value in (None, "", " \n")),
    ("hellaswag", "ctx_b", None, "text (it may be empty)"),
    ("copa", "question", "because", "'cause' or 'effect'"),
    ("copa", "question", None, "'cause' or 'effect'"),
    ("lambada_openai", "text", "he came ", "text that ends with a word"),
    *(("hellaswag", "label", value, "0, 1, 2, 3") for value in ("", "4", "-1", None, "A")),
    *(("hellaswag", "endings", value, "two texts or more") for value in (["a"], None, ["a", None, "b"], ["a", "", "b"])),
    *(("arc_easy", "answerKey", value, "one of choices.label (A, B, C)") for value in ("D", "", None, "2")),
    ("arc_easy", "choices", {"text": ["a", None, "c"], "label": ["A", "B", "C"]}, "two texts or more"),
    ("arc_easy", "choices", {"text": ["a", "b", "c"], "label": ["A", "B", "B"]}, "3 different letters"),
    ("arc_easy", "choices", None, "two texts or more"),
]  # fmt: skip


def write(task: str, items: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "tasks" / f"{task}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(items, schema=pa.schema(list(COLUMNS[task].items()))), path)
    return path


def mirrored(task: str, folder: Path) -> dict[str, Any]:
    return mirror.mirror_task({"kind": "folder", "path": str(folder)}, task, folder / "out.parquet")


@pytest.mark.parametrize(
    ("task", "name", "split"),
    [
        ("lambada_openai", "default", "test"),
        ("copa", "copa", "validation"),
        ("hellaswag", None, "validation"),
        ("wikitext", "wikitext-2-raw-v1", "test"),
    ],
)
def test_a_task_from_a_hub_is_the_split_that_the_harness_scores(
    task: str, name: str | None, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a folder of the repository's name stands for the repository
    repository = Path(definition(task)["dataset_path"])
    items = pq.read_table(write(task, [GOOD[task]] * 3, tmp_path))
    (repository / "data").mkdir(parents=True)
    pq.write_table(items.append_column("extra", pa.nulls(len(items))), repository / "data" / f"{split}-0.parquet")
    pq.write_table(items.slice(0, 1), repository / "data" / "train-0.parquet")
    lines = [f"- config_name: {name or 'default'}", "  data_files:"]
    for each in (split, "train"):
        lines += [f"  - split: {each}", f"    path: data/{each}-*"]
    (repository / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))
    manifest = mirror.mirror_task({"kind": "hub"}, task, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(items)
    assert (manifest["split"], manifest["rows"], manifest["name"]) == (split, 3, name)


def test_every_task_of_a_folder(shared_data: Path, tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(shared_data)}
    for task in COLUMNS:
        manifest = mirror.mirror_task(source, task, tmp_path / f"{task}.parquet")
        items = pq.read_table(shared_data / "tasks" / f"{task}.parquet")
        assert pq.read_table(tmp_path / f"{task}.parquet").equals(items.replace_schema_metadata(None))
        assert read_json(tmp_path / f"{task}.json") == manifest
        assert manifest["licence"] and manifest["rows"] == len(items)


def refusals(task: str, folder: Path) -> list[str]:
    """What the mirror and the evaluation print of a file that neither takes."""
    path, found = folder / "tasks" / f"{task}.parquet", []
    for read in (lambda: mirrored(task, folder), lambda: build_task(task, path)):
        with pytest.raises(UserError) as caught:
            read()
        found.append(str(caught.value))
    assert not (folder / "out.parquet").exists() and "\n" not in "".join(found)
    return found


@pytest.mark.parametrize(("task", "column", "value", "allowed"), BAD, ids=lambda value: str(value)[:24])
def test_an_item_that_cannot_be_scored(task: str, column: str, value: Any, allowed: str, tmp_path: Path) -> None:
    path = write(task, [GOOD[task], {**GOOD[task], column: value}], tmp_path)
    first, second = refusals(task, tmp_path)
    assert first == second
    assert re.match(rf"{path}: row 1 \(from 0\) of task {task}, column '{column}", first), first
    assert f"must be {allowed}" in first
    if not isinstance(value, dict):
        assert repr(value) in first or "home" not in first


def test_only_the_items_that_are_scored_are_looked_at_in_an_evaluation(tmp_path: Path) -> None:
    path = write("rte", [GOOD["rte"], {**GOOD["rte"], "label": -1}], tmp_path)
    assert len(build_task("rte", path, 1).eval_docs) == 1


def test_all_wrong_rows_are_counted(tmp_path: Path) -> None:
    write("piqa", [{**GOOD["piqa"], "label": -1}] * 5 + [GOOD["piqa"]], tmp_path)
    with pytest.raises(UserError, match=r"row 0 .*-1 is not allowed; must be 0 or 1 .*\(5 rows of 6 are wrong\)"):
        mirrored("piqa", tmp_path)


def test_a_file_of_other_columns_or_without_items(tmp_path: Path) -> None:
    path = write("piqa", [], tmp_path)
    assert all("piqa.parquet: no rows" in line for line in refusals("piqa", tmp_path))
    for label in ([1], "one", 0.5):
        pq.write_table(pa.Table.from_pylist([{**GOOD["piqa"], "label": label}]), path)
        assert all("task piqa has a column of another type" in line for line in refusals("piqa", tmp_path))
    pq.write_table(pa.table({"goal": ["x"]}), path)
    assert "task piqa lacks the column 'sol1'" in refusals("piqa", tmp_path)[0]
    with pytest.raises(UserError, match=r"tasks/rte\.parquet: no such file"):
        mirrored("rte", tmp_path)
