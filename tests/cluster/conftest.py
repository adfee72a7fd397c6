"""One Slurm, and one project with its tokens made and its specs written, for all tests on the cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Slurm
from tests.project import Project

STEPS = 1200
SHORT = 400
LONG = 3500  # longer than three interrupted launches of trainings that run on meanwhile


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes of four CPUs and four GPUs each, and one of four CPUs."""
    found = Slurm.start(tmp_path_factory.mktemp("slurm"))
    yield found
    found.stop()


def make_tokens(project: Project) -> None:
    """Everything that comes before the trainings."""
    done = project.snakemake("--quiet", "rules", "--cores", "1", "--until", "tokenize")
    assert done.returncode == 0 and len(project.runs()) == 3, done.stdout + done.stderr


@pytest.fixture(scope="session")
def specified(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of three trainings of some ten seconds each, with everything made that comes before them."""
    project = Project.copy(tmp_path_factory.mktemp("specified"))
    project.edit("config/test.yaml", "steps: 12", f"steps: {STEPS}")
    project.edit("config/test.yaml", "heldout_every: 6", "heldout_every: 500")
    resources = "gpus: 1, memory_mb: 1600, processes: 1, threads: 1, checkpoint_minutes: 0.01, runtime_minutes: 30,"
    project.edit(
        "config/test.yaml", "default: {processes: 1, threads: 1,", f"default: {{{resources} keep_checkpoints: true,"
    )
    # More scores for an evaluation to be stopped between; costs to measure; of the exhibits, one of each kind.
    lengths = f"  context_lengths: {{heldout: {[*range(2, 32)]}}}\n"
    project.edit("config/test.yaml", "  modes:", f"{lengths}  modes:")
    costs = "costs: {lengths: [16], batch_sizes: [1]}\n"
    project.edit(
        "config/test.yaml", "exhibits:\n  table_findings: {models: [tiny]}\n  table1:", f"{costs}exhibits:\n  table5:"
    )
    for figure in ("figure2: {model: tiny}", "figure4: {models: [tiny]}"):
        project.edit("config/test.yaml", f"  {figure}\n", "")
    make_tokens(project)
    return project


@pytest.fixture
def project(specified: Project, tmp_path: Path) -> Project:
    """A copy of its own of the project before its trainings."""
    shutil.copytree(specified.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def of_steps(project: Project, steps: int) -> Project:
    """The same of shorter or longer trainings."""
    shutil.rmtree(project.folder / "results/runs")
    project.edit("config/test.yaml", f"steps: {STEPS}", f"steps: {steps}")
    make_tokens(project)
    return project


@pytest.fixture
def long_project(project: Project) -> Project:
    return of_steps(project, LONG)


@pytest.fixture
def short_project(project: Project) -> Project:
    """Of trainings that two processes share, which takes each update several times as long."""
    return of_steps(project, SHORT)
