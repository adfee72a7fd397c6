"""The matrix of changes on the real Snakefile: for each exactly the expected jobs, no false rerun and no stale result."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.project import Project
from tests.workflow.changes import CHANGES, Change, planned, table

pytestmark = pytest.mark.xdist_group("workflow")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_runs_exactly_its_jobs(finished_copy: Project, change: Change) -> None:
    change.edit(finished_copy)
    jobs = planned(finished_copy)
    assert jobs == change.jobs, f"too much: {sorted(jobs - change.jobs)}; too little: {sorted(change.jobs - jobs)}"


def test_the_matrix_is_the_one_that_is_published() -> None:
    assert table() in (ROOT / "docs/changes.md").read_text()
