"""Tasks beyond the paper's nine: lm-eval's by name and a YAML of one's own, from local Parquet through to a table, offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.project import Project

pytestmark = pytest.mark.slow

OWN = """
task: capitals
dataset_path: ./capitals
output_type: multiple_choice
test_split: test
process_docs: !function capitals_items.without_rivers
doc_to_text: "The capital of {{country}} is"
doc_to_choice: "{{cities}}"
doc_to_target: "{{right}}"
"""
PROCESS = """
def without_rivers(dataset):
    return dataset.filter(lambda item: item["country"] != "the Nile")
"""
CAPITALS = [
    {"country": country, "cities": cities, "right": 1}
    for country, cities in (("France", ["Lyon", "Paris", "Nice"]), ("Peru", ["Cusco", "Lima"]), ("the Nile", ["a", "b"]),
                            ("Kenya", ["Mombasa", "Nairobi"]), ("Chile", ["Arica", "Santiago"]))
]  # fmt: skip
QUESTIONS = [
    {"id": str(n), "question": f"What is {n} and one?", "answerKey": "B",
     "choices": {"text": [str(n), str(n + 1), "many apples"], "label": ["A", "B", "C"]}}
    for n in range(6)
]  # fmt: skip
PAIRS = [{"sentence_good": f"The {n} dogs sleep.", "sentence_bad": f"The {n} dogs sleeps."} for n in range(2, 8)]


def test_from_local_data_to_a_table(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    mirror = tmp_path / "tests/data/mirror/tasks"
    for name, items in (("arc_challenge", QUESTIONS), ("blimp_wh_island", PAIRS), ("capitals", CAPITALS)):
        pq.write_table(pa.Table.from_pylist(items), mirror / f"{name}.parquet")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/capitals.yaml").write_text(OWN)
    (tmp_path / "mine/capitals_items.py").write_text(PROCESS)
    project.edit("config/test.yaml", "tasks: [copa, rte, heldout]",
                 "tasks: [arc_challenge, copa, capitals, blimp_wh_island]\n"
                 "  definitions: {capitals: mine/capitals.yaml}\n  limit: {capitals: 3}\n  precision: bf16")  # fmt: skip
    project.edit("config/test.yaml", "- {models: [tiny], variants: [standard, mlp], layouts: [uniform]}\n  ", "")
    for figure in ("table_findings", "figure1", "figure2", "figure4", "figure5"):
        project.edit("config/test.yaml", f"  {figure}: {{model", f"  # {figure}: {{model")
    done = project.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr

    (run,) = project.runs()
    rows = pd.read_parquet(next(run.glob("evaluation-*/evaluation.parquet")))
    full = rows[rows["mode"] == "full"]
    assert [*zip(full["task"], full["metric"], full["items"], strict=True)] == [
        ("arc_challenge", "acc", 6), ("arc_challenge", "acc_norm", 6), ("copa", "acc", 12),
        ("capitals", "acc", 3), ("capitals", "acc_norm", 3), ("blimp_wh_island", "acc", 6),
    ]  # fmt: skip
    assert np.isfinite(rows["value"]).all()
    samples = pd.read_parquet(next(run.glob("evaluation-*/samples.parquet")))
    own = samples[(samples["task"] == "capitals") & (samples["mode"] == "full")]
    assert own["target"].tolist() == ["Paris", "Lima", "Nairobi"], (
        "of the items that its function leaves, the first three"
    )
    cells = pd.read_parquet(tmp_path / "results/reports/test/tables/table1.parquet")
    printed = cells[(cells["source"] == "ours") & (cells["mode"] == "full")]
    assert {"arc_challenge.acc", "copa.acc", "capitals.acc", "blimp_wh_island.acc"} <= set(printed["column"])
    guess = printed[(printed["variant"] == "random_guess") & (printed["task"] == "capitals")]["value"]
    assert guess.tolist() == [pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)]
    page = (tmp_path / "results/reports/test/tables/table1.html").read_text()
    assert (
        "blimp_wh_island" in page
        and r"arc\_challenge" in (tmp_path / "results/reports/test/tables/table1.tex").read_text()
    )

    assert project.jobs() == []
    (tmp_path / "mine/capitals_items.py").write_text(PROCESS.replace("Nile", "Amazon"))
    again = {rule for rule, _ in project.jobs()}
    assert {"mirror_source", "evaluate", "baselines"} <= again and "pretrain" not in again, (
        "its Python belongs to a definition"
    )
