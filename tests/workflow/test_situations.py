"""What happens to a project, on the real Snakemake: no work is repeated and none is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from deconattn.exhibit import FIGURE_KINDS, TABLE_KINDS
from deconattn.files import sha256_file
from tests.conftest import slow
from tests.project import CONFIG, Project
from tests.workflow.changes import MLP
from tests.workflow.edits import remove, touch

pytestmark = pytest.mark.xdist_group("workflow")
QUIET = ("--quiet", "rules", "reason", "progress")
EXHIBITS = {"figure1", "figure2", "figure4", "figure5", "table1", "table_findings", "page"}


def launch(project: Project, *options: str, config: str = CONFIG) -> set[str]:
    """Start snakemake; the folders, without hashes, that were filled: those whose record is another or new."""
    before = project.records()
    done = project.snakemake(*QUIET, *options, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return made(project, before)


def made(project: Project, before: dict[str, str]) -> set[str]:
    now = project.records()
    changed = [Path(path) for path, sha256 in now.items() if before.get(path) != sha256]
    return {"/".join(part.rpartition("-")[0] or part for part in path.parent.parts[2:]) for path in changed}


@pytest.fixture(scope="module")
def used(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project that one situation after the other is tried on: each leaves it finished."""
    folder = tmp_path_factory.mktemp("used") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Project(folder)


def unlink(*patterns: str) -> Callable[[Project], object]:
    """Delete the files of a run, or of the whole project."""
    return lambda project: [path.unlink() for pattern in patterns for path in project.folder.glob(pattern)]


SITUATIONS: dict[str, tuple[Callable[[Project], object] | None, tuple[str, ...], set[str]]] = {
    "nothing": (None, (), set()),
    "marker lost": (unlink(f"results/runs/{MLP}-*/done"), (), set()),
    "record of a run lost": (unlink(*(f"results/runs/{MLP}-*/{name}" for name in ("done", "record.json"))), (), {MLP}),
    "notes of Snakemake lost": (remove(".snakemake"), (), set()),
    "shown report lost": (remove("results/reports"), (), set()),
    "other times": (touch("results/**/*", "resources/**/*"), (), set()),
    "all output deleted": (lambda project: project.snakemake("--delete-all-output"), (), EXHIBITS),
    "-R": (None, ("-R", "pretrain", "evaluate", "aggregate", "mirror_source", "tokenize"), set()),
    # Snakemake deletes declared pictures and pages before it starts their jobs
    "-F": (None, ("-F",), EXHIBITS),
    "all triggers": (None, ("--rerun-triggers", "mtime", "input", "params", "code", "software-env"), EXHIBITS),
    "conda": (None, ("--sdm", "conda"), set()),
}
"""Name → what happens to the project, options of the next launch, what that launch may fill again."""


def files_of_exhibits(project: Project) -> dict[str, str]:
    """File → SHA-256 of its bytes, of each format of each exhibit."""
    kinds = {*TABLE_KINDS, *FIGURE_KINDS}
    paths = [path for path in project.folder.glob("results/exhibits/*/*.*") if path.suffix[1:] in kinds]
    return {str(path): sha256_file(path) for path in paths if path.name not in ("record.json", "spec.json")}


@pytest.mark.parametrize("name", ["marker lost", *slow(*(name for name in SITUATIONS if name != "marker lost"))])
def test_what_is_lost_is_made_again_and_nothing_else(used: Project, name: str) -> None:
    happens, options, again = SITUATIONS[name]
    exhibits = files_of_exhibits(used)
    if happens:
        happens(used)
    assert launch(used, *options) <= again
    assert files_of_exhibits(used) == exhibits
    assert (used.folder / "results/reports/test/figures/figure5.png").is_file()
    assert used.planned() == {} and used.deconattn("verify").returncode == 0


@pytest.mark.slow
def test_to_another_setting_and_back_makes_it_once_and_finds_the_earlier_again(used: Project) -> None:
    """A → B → A for a training, an evaluation and a figure: the first launch of B works, the return does nothing.

    Pruning what B alone named leaves A whole.
    """
    shown = used.folder / "results/reports/test"
    config = used.folder / CONFIG
    before, loss = config.read_text(), (shown / "figures/figure5.png").read_bytes()
    tables = {path: path.read_bytes() for path in shown.rglob("*.*")}
    for old, new, expected in (
        ("peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3", {"tiny-standard-uniform-s0", f"{MLP}/evaluation"}),
        ("  modes: [full", "  limit: {copa: 3}\n  modes: [full", {f"{MLP}/evaluation", "items", "table1"}),
        ("  figure5: {models: [tiny]}\n", "", {"page"}),
    ):
        config.write_text(before.replace(old, new))
        assert config.read_text() != before
        did = launch(used)
        assert expected <= did and not {"tales-32", "bpe384"} & did, did
        if "learning_rate" in old:
            assert (shown / "figures/figure5.png").read_bytes() != loss
        if "figure5" in old:
            assert did == {"page"} and not (shown / "figures/figure5.png").exists()
        config.write_text(before)
        assert launch(used) == set()
        now = {path: path.read_bytes() for path in shown.rglob("*.*")}
        assert now == tables, "the report shows what the config names"
    gone = used.deconattn("prune", CONFIG, "--older-than", "0", "--launched-within", "0", "--delete")
    assert gone.returncode == 0 and "evaluation-" in gone.stdout, gone.stdout + gone.stderr
    assert launch(used) == set() and used.deconattn("verify").returncode == 0


def test_full_dag_shows_what_everything_is_made_from(finished_copy: Project) -> None:
    graph = finished_copy.snakemake("--rulegraph", "--config", "full_dag=1").stdout
    assert "pretrain" in graph and graph.count("->") > 10
    assert finished_copy.planned("--config", "full_dag=1") == {}


def test_a_default_storage_provider_is_refused_in_one_line(used: Project) -> None:
    done = used.snakemake("-n", "--default-storage-provider", "s3", "--default-storage-prefix", "s3://x")
    said = (done.stdout + done.stderr).strip()
    assert done.returncode != 0 and "Traceback" not in said


@pytest.mark.slow
def test_one_run_fails_then_a_partial_report_then_all_of_it(finished_copy: Project) -> None:
    project = finished_copy
    (run,) = project.runs(f"{MLP}-*")
    for path in (run / "record.json", run / "done"):
        path.unlink()
    model = run / "model"
    for folder in (project.folder / "results/exhibits", project.folder / "results/tables", model):
        shutil.rmtree(folder)
    model.write_text("in the way")  # the training cannot write its weights
    failed = project.snakemake(*QUIET)
    assert failed.returncode != 0
    why = (run / "error.txt").read_text().strip()
    partial = launch(project, "--profile", "profiles/figures")
    assert partial == EXHIBITS | {"test", "test-attention"}
    (tables,) = [path.parent for path in project.folder.glob("results/tables/test-????????/record.json")]
    gaps = pd.read_parquet(tables / "gaps.parquet")
    assert gaps["reason"].tolist() == [f"not trained: {why}"], gaps
    assert why.split("(")[0][:40] in (project.folder / "results/reports/test/figures/figure5.svg").read_text()
    model.unlink()
    whole = launch(project)
    assert whole == {MLP, "test", "test-attention", *EXHIBITS}
    assert launch(project) == set()
    # With all of them there, the partial report is the whole one.
    assert launch(project, "--profile", "profiles/figures") == set()


def test_partial_starts_no_job_above_tables(finished_copy: Project) -> None:
    for run in finished_copy.runs():
        shutil.rmtree(run)
    plan = finished_copy.planned("--config", "partial=true")
    assert set(plan) == {"aggregate", "figure", "table", "page"}


def killed(project: Project, until: Callable[[], object]) -> None:
    """Start snakemake, and kill it alone with -9 once something holds: what it started runs on."""
    process = project.start(*QUIET, "--cores", "2")
    end = time.monotonic() + 120
    while not until():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    project.snakemake("--unlock")


@pytest.mark.slow
def test_started_again_beside_what_a_killed_launch_left_running(finished_copy: Project) -> None:
    project = finished_copy
    project.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    before = project.records()
    old = set(project.runs())
    killed(project, lambda: any((run / "lock").exists() for run in set(project.runs()) - old))
    assert project.snakemake(*QUIET).returncode == 0
    assert {f"{MLP}", "tiny-rndembqk-even-s0", "tiny-standard-uniform-s0"} <= made(project, before)
    for run in set(project.runs()) - old:
        steps = [line for line in (run / "log/pretrain.log").read_text().splitlines() if " step 12/12" in line]
        assert len(steps) == 1, "trained to its end once"
    assert launch(project) == set()


@pytest.mark.slow
def test_two_launches_at_once_do_the_work_once(finished_copy: Project) -> None:
    project = finished_copy
    project.edit(CONFIG, "  modes: [full", "  limit: {copa: 3}\n  modes: [full")
    logs = project.folder / ".snakemake/log"
    earlier = set(logs.glob("*"))
    both = [project.start(*QUIET, "--nolock", "--cores", "1") for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    printed = "".join(path.read_text(encoding="utf-8") for path in set(logs.glob("*.jobs.log")) - earlier)
    assert printed.count("copa (full, context 32)") == 3, "each run is evaluated once"
    assert launch(project) == set() and project.deconattn("verify").returncode == 0


@pytest.mark.slow
def test_the_guard_stops_for_code_alone_and_adopt_keeps_what_is_finished(finished_copy: Project) -> None:
    project = finished_copy
    old = {run.name for run in project.runs()}
    project.edit(CONFIG, "name: test", "name: test\nredo_gpu_hours: 0")
    project.edit("deconattn/mixers/mlp.py", "return max(1, round(", "return max(1, 0 + round(")  # the same numbers
    stopped = project.snakemake()
    said = stopped.stdout + stopped.stderr
    assert stopped.returncode != 0 and "Traceback" not in said
    assert "stopped: 1 finished runs" in said and "deconattn.mixers.mlp.inner_width changed" in said, said
    assert {run.name for run in project.runs()} - old == set(), "nothing was begun"
    command = next(line.split() for line in said.splitlines() if line.strip().startswith("deconattn adopt"))
    adopted = project.deconattn("adopt", *command[2:], "--reason", "the same numbers")
    assert adopted.returncode == 0, adopted.stderr
    # Its evaluation can reach the edited mixer too: it is made again, the training is not.
    assert launch(project) == {f"{MLP}/evaluation", "test", "test-attention", *EXHIBITS}
    (run,) = project.runs(f"{MLP}-*")
    assert run.name not in old
    assert project.deconattn("verify").returncode == 0
    # Another learning rate is no matter of the guard.
    project.edit(CONFIG, "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    assert dict(project.planned())["pretrain"] == 3
