"""The real Snakefile from a config to the exhibits of costs: no run is trained, and what is measured decides what is redone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from deconattn.files import sha256_file
from tests.project import CONFIG, Project
from tests.workflow.changes import touch

pytestmark = pytest.mark.xdist_group("workflow")
REPORT = "results/reports/test"
TARGETS = (f"{REPORT}/tables/table6.html", f"{REPORT}/figures/figure_costs.png")
COSTS = "\ncosts: {lengths: [16, 33], batch_sizes: [1, 2], variants: [mlp, rndembqk], repeats: 1}\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose costs were measured and drawn, and in which nothing else was done."""
    project = Project.copy(tmp_path_factory.mktemp("costs"))
    exhibits = "exhibits:\n  table6: {model: tiny}\n  figure_costs: {model: tiny}\n"
    project.edit(CONFIG, "exhibits:\n", COSTS + exhibits)
    done = project.snakemake("--cores", "2", "--quiet", "rules", "--", *TARGETS)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def planned(project: Project, *options: str) -> dict[str, int]:
    return project.planned(*options, "--", *TARGETS)


def files(project: Project) -> list[Path]:
    return sorted((project.folder / "results/costs").glob("tiny-????????.parquet"))


def test_costs_are_drawn_without_any_run(measured: Project) -> None:
    (file,) = files(measured)
    table = pd.read_parquet(file)
    assert len(table) == 8 and set(table["variant"]) == {"mlp", "rndembqk"} and table["reason"].isna().all()
    assert set(table["device"].str.partition(",")[0]) == {"CPU"} and set(table["threads"]) == {1}
    assert (measured.folder / TARGETS[1]).stat().st_size > 10_000
    assert "agree exactly, in all 8 rows" in (measured.folder / TARGETS[0]).read_text()
    assert not (measured.folder / "results/runs").exists()
    assert planned(measured) == {}


def test_what_changes_what_is_measured_measures_again_and_nothing_else(measured: Project) -> None:
    steps = [
        ("config/test.yaml", "lengths: [16, 33]", "lengths: [16, 34]", 1),
        ("config/test.yaml", "num_attention_heads: 2", "num_attention_heads: 4", 1),
        ("deconattn/mixers/mlp.py", "return max(1, round(", "return max(2, round(", 1),
        ("deconattn/mixers/softplus.py", "BEND = 40.0", "BEND = 41.0", 0),
        ("config/test.yaml", "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3", 0),
        ("config/test.yaml", "processes: 1, threads: 1,", "processes: 1, threads: 2, memory_mb: 3000,", 0),
    ]
    for file, old, new, jobs in steps:
        measured.edit(file, old, new)
        assert planned(measured).get("measure", 0) == jobs, new
        measured.edit(file, new, old)
    assert planned(measured) == {}


def test_records_decide_and_notes_or_times_of_files_do_not(measured: Project) -> None:
    (file,) = files(measured)
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["spec"]["variants"] == ["mlp", "rndembqk"] and record["files"][file.name] == sha256_file(file)
    shutil.rmtree(measured.folder / ".snakemake")
    touch("results/**/*")(measured)
    assert planned(measured) == {}
    all_again = {"measure": 1, "aggregate_costs": 1, "table6": 1, "figure_costs": 1}
    steps = [
        ("deconattn/analysis/measure.py", "SHORTEST, LONGEST = 0.1, 10.0", "SHORTEST, LONGEST = 0.1, 11.0", all_again),
        ("deconattn/report/collect_costs.py", "ignore_index=True", "ignore_index=1", all_again | {"measure": 0}),
        ("deconattn/report/figure_costs.py", "def draw", "def other() -> None: ...\n\n\ndef draw", {"figure_costs": 1}),
    ]
    for code, old, new, jobs in steps:
        measured.edit(code, old, new)
        assert planned(measured) == {rule: count for rule, count in jobs.items() if count}, code
        measured.edit(code, new, old)
    plan = planned(measured, "-R", "aggregate_costs")
    assert plan == {"aggregate_costs": 1, "table6": 1, "figure_costs": 1}
    assert planned(measured) == {}


def test_without_its_measurements_a_partial_report_says_so(measured: Project) -> None:
    measured.edit("config/test.yaml", "lengths: [16, 33]", "lengths: [16, 35]")
    figures = ("--profile", "profiles/figures")
    plan = planned(measured, *figures)
    assert "measure" not in plan and plan["aggregate_costs"] == 1
    done = measured.snakemake(*figures, "--quiet", "rules", "--", *TARGETS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tiny: not measured yet" in (measured.folder / TARGETS[0]).read_text()
