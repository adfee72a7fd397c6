"""The real Snakefile from a config to the exhibits of costs: no run is trained, and what is measured decides what is redone."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest

from tests.project import CONFIG, Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("costs")]
COSTS = "\ncosts: {lengths: [16, 33], batch_sizes: [1, 2], variants: [mlp, rndembqk], repeats: 1}\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose costs were measured and drawn, and in which nothing else was done."""
    project = Project.copy(tmp_path_factory.mktemp("costs"))
    text = (project.folder / CONFIG).read_text()
    head, _, rest = text.partition("exhibits:\n")
    exhibits = "exhibits:\n  table6: {model: tiny}\n  figure_costs: {model: tiny}\n"
    (project.folder / CONFIG).write_text(head + COSTS + exhibits + rest[rest.index("\nresources:") :])
    done = project.snakemake("--cores", "2", "--quiet", "rules", "--", *targets(project))
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def targets(project: Project) -> list[str]:
    """The page of where the two exhibits come from; no run."""
    (folder,) = [folder for rule, folder, _ in project.plan() if rule == "page"]
    return [f"{folder}/done"]


def planned(project: Project) -> dict[str, int]:
    """Jobs that are no part of a run or its data."""
    wanted = ("measure", "aggregate", "table", "figure", "page")
    return dict(Counter(rule for rule, _ in project.jobs() if rule in wanted))


def test_costs_are_drawn_without_any_run(measured: Project) -> None:
    (file,) = (measured.folder / "results/costs").glob("tiny-cpu-*/costs.parquet")
    table = pd.read_parquet(file)
    assert len(table) == 8 and set(table["variant"]) == {"mlp", "rndembqk"} and table["reason"].isna().all()
    assert set(table["device"].str.partition(",")[0]) == {"CPU"} and set(table["threads"]) == {1}
    shown = measured.folder / "results/reports/test"
    assert (shown / "figures/figure_costs.png").stat().st_size > 10_000
    assert "agree exactly, in all 8 rows" in (shown / "tables/table6.html").read_text()
    assert not list(measured.folder.glob("results/runs/*/record.json"))
    assert planned(measured) == {}


DRAWN = {"aggregate": 1, "table": 1, "figure": 1, "page": 1}
MEASURED = {"measure": 1, **DRAWN}
SAME = {}
EDITS = [
    (CONFIG, "lengths: [16, 33]", "lengths: [16, 34]", MEASURED),
    (CONFIG, "num_attention_heads: 2", "num_attention_heads: 4", MEASURED),
    ("deconattn/mixers/mlp.py", "return max(1, round(", "return max(2, round(", MEASURED),
    ("deconattn/analysis/measure.py", "SHORTEST, LONGEST = 0.05, 10.0", "SHORTEST, LONGEST = 0.05, 11.0", MEASURED),
    ("deconattn/report/collect.py", "ignore_index=True", "ignore_index=1", DRAWN),
    ("deconattn/mixers/softplus.py", "BEND = 40.0", "BEND = 41.0", SAME),
    (CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3", SAME),
    (CONFIG, "processes: 1, threads: 1,", "processes: 1, threads: 2, memory_mb: 3000,", SAME),
]


@pytest.mark.parametrize(("file", "old", "new", "jobs"), EDITS, ids=[new for _, _, new, _ in EDITS])
def test_what_an_edit_measures_or_draws_again(
    measured: Project, file: str, old: str, new: str, jobs: dict[str, int]
) -> None:
    measured.edit(file, old, new)
    try:
        of_costs = planned(measured)
    finally:
        measured.edit(file, new, old)
    assert of_costs == jobs and planned(measured) == {}


def test_without_its_measurements_a_partial_report_says_so(measured: Project) -> None:
    measured.edit(CONFIG, "lengths: [16, 33]", "lengths: [16, 35]")
    done = measured.snakemake("--profile", "profiles/figures", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned(measured)["measure"] == 1, "nothing was measured"
    assert "tiny: not measured yet" in (measured.folder / "results/reports/test/tables/table6.html").read_text()
