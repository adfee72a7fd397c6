"""What the tests share: the two tiers, what is made once for all workers, and that a missing piece is loud."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import configuration, settings

from tests import training
from tests.project import ROOT, Project

IN_CI = os.environ.get("CI", "") == "true"

# One thread a process, here and in every process that a test starts: two workers share two cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# PyTorch's cache of compiled code does not know processors: what one with AVX2 has left there corrupts memory on AVX-512.
CPUINFO = Path("/proc/cpuinfo")
LINES = CPUINFO.read_text().splitlines() if CPUINFO.exists() else [platform.processor()]
PROCESSOR = next((line for line in LINES if "flags" in line), LINES[0])
ABLE = hashlib.sha256(f"{PROCESSOR} {os.environ.get('ATEN_CPU_CAPABILITY')}".encode()).hexdigest()[:8]
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/deconattn-inductor-{ABLE}")

# A shell has what it starts in its background ignore Ctrl-C, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One that makes the finished project is the first: the other workers have time for what needs none. Then long ones, so that no
# worker ends with one while the others have nothing left.
LONGEST = (
    "workflow/test_whole_way.py::test_every_stage_leaves_what_it_should", "cluster", "training/test_soak", "training",
    "report/test_figures", "evaluation/test_numbers", "report/test_attention_figures",
    "mixers/test_faults", "workflow", "web",
)  # fmt: skip
# One worker has all of a file whose fixtures take longer than most of its tests.
TOGETHER = {
    "test_figures",
    "test_page",
    "test_manuscript",
    "test_attention_figures",
    "test_cost_exhibits",
    "test_tables",
    "test_numbers",
}
CACHES = {".git", ".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}

# However slow the machine is, an example may take its time; and what Hypothesis keeps lies outside of the checkout.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "deconattn-hypothesis")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="the tests marked slow, too")


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests where they are not asked for; sort the others, those of a file together."""
    if not config.getoption("--slow"):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]

    def rank(item: pytest.Item) -> int:
        place = item.nodeid.removeprefix("tests/")
        return next((rank for rank, name in enumerate(LONGEST) if place.startswith(name)), len(LONGEST))

    items.sort(key=rank)
    for item in items:
        if item.path.stem in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def files_of_the_checkout() -> set[str]:
    """All files but those that tools keep for themselves."""
    found = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in CACHES and not name.endswith(".egg-info")]
        found.update(os.path.join(folder, name) for name in files)
    return found


FILES = pytest.StashKey[set[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.stash[FILES] = files_of_the_checkout()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The suite writes nothing into the checkout."""
    if FILES in session.config.stash:
        written = sorted(files_of_the_checkout() - session.config.stash[FILES])
        if written:
            print("\nwritten into the checkout while the tests ran:", *written, sep="\n  ")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def slow(*values: object) -> list[object]:
    """Values of a parameter, or tuples of those of several, with which a test is slow."""
    return [pytest.param(*value if isinstance(value, tuple) else (value,), marks=pytest.mark.slow) for value in values]


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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one worker fills, by `make(folder)`, and all workers read."""
    root = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, made = root / name, root / f"{name}.made"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            if folder.exists():
                pytest.fail(f"{name} could not be made: see the test that tried first")
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def run_to_its_end(folder: Path) -> None:
    """A project's small grid."""
    done = Project.copy(folder).snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr


def train_to_its_end(run: Path, tokens: Path) -> None:
    done = training.train(run, tokens)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose small grid has run to its end, for all workers: tests read it, or change a `finished_copy`."""
    return Project(made_once(tmp_path_factory, "finished", run_to_its_end))


@pytest.fixture
def finished_copy(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, times and Snakemake's records included, for a test that changes it."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def token_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small token table to train on."""
    return made_once(tmp_path_factory, "small-tokens", training.make_tokens) / "tokens"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """A small training that nothing interrupted."""
    make = lambda folder: train_to_its_end(training.make_run(folder / "undisturbed"), token_table)  # noqa: E731
    return made_once(tmp_path_factory, "trained", make) / "undisturbed"


@pytest.fixture(scope="session")
def longer(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """As `undisturbed`, of as many updates as it takes to disturb one: the twin of `training.longer_run`."""
    make = lambda folder: train_to_its_end(training.longer_run(folder / "longer"), token_table)  # noqa: E731
    return made_once(tmp_path_factory, "longer", make) / "longer"
