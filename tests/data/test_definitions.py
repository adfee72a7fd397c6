"""Definitions of tasks are found without lm-eval, and it finds the same; those that cannot be scored are refused in a line."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deconattn.data import mirror
from deconattn.data.definitions import definition_path, files_of, index, local_dataset, problem, sum_of
from deconattn.errors import UserError
from deconattn.evaluation.baselines import baseline_rows
from deconattn.evaluation.tasks import build_task
from deconattn.files import read_json

OWN = """
task: any name
dataset_path: {path}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{country}}}}:"
doc_to_choice: "{{{{cities}}}}"
doc_to_target: "{{{{right}}}}"
"""
ITEMS = [{"country": "Peru", "cities": ["Cusco", "Lima"], "right": "Lima"},
         {"country": "Kenya", "cities": ["Mombasa", "Nairobi", "Kisumu"], "right": "Nairobi"}]  # fmt: skip


def own(folder: Path, text: str = OWN) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text.format(path=folder / "capitals"))
    return path


@pytest.mark.slow  # lm-eval's own index takes half a minute on a busy machine
def test_the_index_is_the_harness_own() -> None:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Kind

    theirs = {n: e.yaml_path for n, e in TaskManager().task_index.items() if e.kind in (Kind.TASK, Kind.GROUP)}
    assert {name: index().get(name) for name in theirs} == theirs


def test_a_definition_of_ones_own_reads_a_folder_as_a_hub(tmp_path: Path) -> None:
    path = own(tmp_path)
    (tmp_path / "capitals").mkdir()
    pq.write_table(pa.Table.from_pylist(ITEMS), tmp_path / "capitals/validation.parquet")
    pq.write_table(pa.Table.from_pylist(ITEMS[:1]), tmp_path / "capitals/train.parquet")
    assert local_dataset(path) == str(tmp_path / "capitals") and problem("capitals", path) is None
    out = tmp_path / "out/capitals.parquet"
    mirror.mirror_task({"kind": "hub"}, "capitals", out, str(path))
    assert pq.read_table(out).to_pylist() == ITEMS
    assert read_json(out.with_suffix(".json"))["split"] == "validation"
    task = build_task("capitals", out, own=path)
    task.build_all_requests()
    asked = [("Peru:", " Cusco"), ("Peru:", " Lima"), ("Kenya:", " Mombasa")]
    assert [request.args for request in task.instances][:3] == asked
    rows = baseline_rows({"capitals": out}, definitions={"capitals": str(path)})
    assert [row["value"] for row in rows] == [pytest.approx((1 / 2 + 1 / 3) / 2), 1.0]


def test_items_that_a_definition_does_not_fit_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    for items in ([{"country": "Peru"}], [{"cities": ["a", "b"], "right": 0}]):
        pq.write_table(pa.Table.from_pylist(items), path)
        with pytest.raises(UserError, match=f"^{path}: task capitals: the definition does not fit .*undefined"):
            build_task("capitals", path, own=own(tmp_path)).build_all_requests()


def test_its_identity_is_all_that_it_means(tmp_path: Path) -> None:
    path = own(tmp_path, "include: base.inc\n" + OWN.replace('"{{{{country}}}}:"', "!function words.ask"))
    (tmp_path / "base.inc").write_text("description: Capitals.\n")
    (tmp_path / "words.py").write_text("def ask(item):\n    return item['country']\n")
    assert [file.name for file in files_of(path)][:2] == ["mine.yaml", "words.py"]
    sums = {sum_of(path)}
    for name in ("mine.yaml", "base.inc", "words.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# more\n")
        sums.add(sum_of(path))
    assert len(sums) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("output_type: multiple_choice\n", ""), "output_type generate_until"),
        (OWN.replace("validation_split: validation\n", ""), "names neither test_split nor validation_split"),
        (OWN + "doc_to_image: picture\n", "has doc_to_image"),
        (OWN + "unsafe_code: true\n", "runs code that the model writes"),
        ("group: mine\ntask: [a, b]\n", "is a group of tasks"),
        ("class: x\ntask: mine\n", "is a Python class"),
        ("a: [\n", "is not a definition of a task"),
        ("include: gone.yaml\n", "no such file: .*gone.yaml"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    found = problem("mine", own(tmp_path, text))
    assert found is not None and "\n" not in found
    assert re.search(said, found), found


def test_names_of_lm_eval(tmp_path: Path) -> None:
    assert definition_path("mmlu_anatomy").name == "mmlu_anatomy.yaml" and problem("mmlu_anatomy") is None
    assert problem("winogrande") is None and problem("heldout") is None
    assert "did you mean 'arc_challenge'" in str(problem("arc_challange"))
    assert "give yours another name" in str(problem("copa", "mine.yaml"))
    with pytest.raises(UserError, match="put its items into tasks/mine.parquet of a folder"):
        files_alone = own(tmp_path, OWN.replace("{path}", "json"))
        mirror.mirror_task({"kind": "hub"}, "mine", tmp_path / "mine.parquet", str(files_alone))
