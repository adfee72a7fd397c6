"""What the tests share: where the real data lies, and that a missing piece is loud."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests import training
from tests.project import ROOT, Project

IN_CI = os.environ.get("CI", "") == "true"

# One thread a process, here and in every process that a test starts: two workers share two cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


# A shell has what it starts in its background ignore Ctrl-C, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def skip_or_fail(reason: str) -> None:
    """Skip with a visible reason; in CI a missing piece is a failure, so that nothing is silently untested."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real evaluation sets and text beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        skip_or_fail(f"real data not found: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose small grid has run to its end; tests leave it as they found it, or work on `finished_copy`."""
    project = Project.copy(tmp_path_factory.mktemp("finished"))
    done = project.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def finished_copy(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, times and Snakemake's records included, for a test that changes it."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def token_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small token table to train on."""
    return training.make_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """A small training that nothing interrupted."""
    run = training.make_run(tmp_path_factory.mktemp("runs") / "undisturbed")
    done = training.train(run, token_table)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def longer(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """As `undisturbed`, of as many updates as it takes to disturb one: the twin of `training.longer_run`."""
    run = training.longer_run(tmp_path_factory.mktemp("longer") / "longer")
    done = training.train(run, token_table)
    assert done.returncode == 0, done.stderr
    return run
