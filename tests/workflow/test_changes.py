"""The matrix of changes: for each exactly the expected jobs, no false rerun and no stale result.

Eight rows are tried on the real Snakemake too, and not in the package's own plan alone; all but four of them are slow.
"""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.project import Project
from tests.workflow.changes import CHANGES, Change, table

pytestmark = pytest.mark.xdist_group("workflow")
FAST = (
    "a class attribute of one mixer", "tokenization", "a figure deleted, with its marker",
    "results copied to another machine",
)  # fmt: skip
ON_SNAKEMAKE = (*FAST, "nothing", "a seed added", "a mode dropped", "the token table deleted, a seed added")
ROWS = [
    pytest.param(change, id=change.name, marks=() if change.name in FAST else pytest.mark.slow) for change in CHANGES
]


@pytest.mark.parametrize("change", ROWS)
def test_a_change_runs_exactly_its_jobs(finished_copy: Project, change: Change) -> None:
    change.edit(finished_copy)
    jobs = finished_copy.jobs()
    assert len(jobs) == len(set(jobs))
    assert set(jobs) == change.jobs, (
        f"too much: {sorted(set(jobs) - change.jobs)}; too little: {sorted(change.jobs - set(jobs))}"
    )
    if change.name in ON_SNAKEMAKE:
        assert finished_copy.planned_jobs() == jobs


def test_some_rows_are_asked_of_snakemake_too() -> None:
    assert set(ON_SNAKEMAKE) <= {change.name for change in CHANGES}


def test_the_matrix_is_the_one_that_is_published() -> None:
    assert table() in (ROOT / "docs/changes.md").read_text()
