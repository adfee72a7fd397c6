"""The names of the paper's runs: what would train its grid again shows as a diff."""

from __future__ import annotations

from pathlib import Path

import pytest

from deconattn.experiment.changes import compare_ids, write_ids
from tests.project import ROOT

PAPER = Path("config/paper.yaml")


def test_the_papers_grid_is_the_one_that_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert compare_ids(PAPER) is None


@pytest.mark.slow
def test_a_change_is_told_with_its_runs_and_hours_and_one_command_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = tmp_path / "paper.yaml"
    text = PAPER.read_text()
    config.write_text(text)
    assert "65 of 65 runs have other names than there (0 of them only another hash)" in str(compare_ids(config))
    assert write_ids(config).read_text() == PAPER.with_suffix(".ids").read_text() and compare_ids(config) is None
    config.write_text(text.replace("peak_learning_rate: 3e-4", "peak_learning_rate: 2e-4"))
    problem = str(compare_ids(config))
    assert "5 of 65 runs" in problem and "(5 of them only another hash), and 5 names are gone" in problem
    assert "1,449 GPU-hours" in problem and f"deconattn pin-ids {config}" in problem
    write_ids(config)
    assert compare_ids(config) is None
