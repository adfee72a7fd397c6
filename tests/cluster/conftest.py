"""One Slurm, and one project with its tokens made and its specs written, for all tests on the cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Slurm
from tests.project import Project

STEPS = 3500


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes of four CPUs and four GPUs each. A requeued job waits 5 s; a busy machine's nodes do not count as lost."""
    found = Slurm.start(
        tmp_path_factory.mktemp("slurm"), NODES=2, CPUS=4, GPUS=4, KILLWAIT=20, SLURMDTIMEOUT=300, CREDEXPIRE=5
    )
    yield found
    found.stop()


@pytest.fixture(scope="session")
def specified(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of three trainings of some twenty seconds each, with everything made that comes before them."""
    project = Project.copy(tmp_path_factory.mktemp("specified"))
    project.edit("config/test.yaml", "steps: 12", f"steps: {STEPS}")
    project.edit("config/test.yaml", "heldout_every: 6", "heldout_every: 500")
    project.edit(
        "config/test.yaml",
        "default: {processes: 1, threads: 1,",
        "default: {gpus: 1, memory_mb: 1500, processes: 1, threads: 1, checkpoint_minutes: 0.01, runtime_minutes: 30,",
    )
    project.edit("profiles/slurm/config.yaml", "mem_mb: 4000", "mem_mb: 1500")
    done = project.snakemake("--quiet", "rules", "--cores", "1", "--until", "spec")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(project.runs()) == 3
    return project


@pytest.fixture
def project(specified: Project, tmp_path: Path) -> Project:
    """A copy of its own of the project before its trainings."""
    shutil.copytree(specified.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")
