"""Config or code edited while a job waits in a real Slurm's queue: the result is the recorded spec's, or the job refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cluster.cluster import Slurm
from tests.project import CONFIG, Project
from tests.training import PATIENCE, wait_for
from tests.workflow.edits import MLP_EDITED

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]
QUEUED = "config/queued.yaml"


@pytest.fixture(scope="module")
def project(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of one run whose data is made: what is left goes through the queue."""
    project = Project.copy(tmp_path_factory.mktemp("queued") / "project")
    config = yaml.safe_load((project.folder / CONFIG).read_text())
    config["grid"] = [{"models": ["tiny"], "variants": ["mlp"], "layouts": ["uniform"], "seeds": [0]}]
    config["exhibits"] = {"figure5": {"models": ["tiny"]}}
    (project.folder / QUEUED).write_text(yaml.safe_dump(config, sort_keys=False))
    made = project.snakemake("--until", "tokenize", "mirror_source", "--quiet", "rules", config=QUEUED)
    assert made.returncode == 0, made.stdout + made.stderr
    return project


def launch(project: Project, slurm: Slurm) -> subprocess.Popen[bytes]:
    often = ("--slurm-init-seconds-before-status-checks", "1")
    return slurm.launch(project, project.folder / "snakemake.log", "--retries", "0", *often, config=QUEUED)


def end_of(process: subprocess.Popen[bytes], project: Project) -> tuple[int, str]:
    """Exit code of a launch, and what it printed."""
    return process.wait(timeout=2 * PATIENCE), (project.folder / "snakemake.log").read_text()


@contextmanager
def waiting(project: Project, slurm: Slurm) -> Iterator[subprocess.Popen[bytes]]:
    """A launch whose training waits in the queue as long as the block lasts."""
    everything = ("--partition=gpu", "--nodes=2", "--ntasks=8", "--mem=100", "--output=/dev/null")
    blocker = slurm.call("sbatch", "--parsable", *everything, "--wrap", "sleep 600").strip()
    wait_for(lambda: states(slurm)[blocker] == "RUNNING", pause=0.2)
    process = launch(project, slurm)
    try:
        wait_for(lambda: "PENDING" in states(slurm).values(), process, pause=0.2)
        assert process.poll() is None, end_of(process, project)
        yield process
    finally:
        slurm.call("scancel", blocker)


def states(slurm: Slurm) -> dict[str, str]:
    """Number of a job → its state."""
    return {job["JobId"]: job["JobState"] for job in slurm.jobs()}


def only_run(project: Project, seed: int) -> Path:
    (run,) = project.runs(f"tiny-mlp-uniform-s{seed}-*")
    return run


def test_a_config_edited_meanwhile_changes_nothing_of_what_is_queued(project: Project, slurm: Slurm) -> None:
    text = (project.folder / QUEUED).read_text()
    with waiting(project, slurm) as process:
        edited = yaml.safe_load(text)
        edited["training"]["peak_learning_rate"] = 9e-3
        edited["evaluation"]["tasks"] = ["copa"]
        edited["tokenizer"]["vocab_size"] = 300
        (project.folder / QUEUED).write_text(yaml.safe_dump(edited, sort_keys=False))
    code, printed = end_of(process, project)
    assert code == 0, printed
    run = only_run(project, 0)
    spec = json.loads((run / "spec.json").read_text())
    assert spec["training"]["peak_learning_rate"] == 4e-3
    assert max(pq.read_table(run / "train.parquet")["learning_rate"].to_pylist()) == pytest.approx(4e-3)
    tasks = pq.read_table(next(run.glob("evaluation-*/evaluation.parquet")))["task"].to_pylist()
    assert set(tasks) == {"copa", "rte", "heldout"}
    verified = project.deconattn("verify")
    assert verified.returncode == 0, verified.stdout
    plan = project.planned(config=QUEUED)
    assert (plan["pretrain"], plan["tokenize_part"]) == (1, 2), "the edited config is another run, and still to be done"
    (project.folder / QUEUED).write_text(text)
    assert project.planned(config=QUEUED) == {}, "the recorded config is done"


def test_code_edited_meanwhile_is_refused_in_one_line(project: Project, slurm: Slurm) -> None:
    project.edit(QUEUED, "  - 0\n", "  - 0\n  - 1\n")
    with waiting(project, slurm) as process:
        MLP_EDITED(project)
    code, printed = end_of(process, project)
    assert code != 0, printed
    run = only_run(project, 1)
    assert not (run / "record.json").exists() and not list(run.glob("checkpoints/step-*"))
    logs = "\n".join(path.read_text() for path in (project.folder / ".snakemake").rglob("*.log"))
    lines = [line for line in logs.splitlines() if "was edited since; start snakemake again" in line]
    assert lines and all(f"{run.name}/spec.json: written for code" in line for line in lines), logs[-3000:]
    assert "InputFunctionException" not in logs + printed and "Traceback" not in logs
    project.edit("deconattn/mixers/mlp.py", "return max(1, 1 + round(", "return max(1, round(")
    assert project.planned(config=QUEUED)["pretrain"] == 1


def test_what_is_edited_while_a_training_runs_is_no_part_of_it(project: Project, slurm: Slurm) -> None:
    config = yaml.safe_load((project.folder / QUEUED).read_text())
    config["grid"][0]["seeds"], config["training"]["steps"] = [2], 800
    text = yaml.safe_dump(config, sort_keys=False)
    (project.folder / QUEUED).write_text(text)
    process = launch(project, slurm)
    wait_for(lambda: any((run / "lock").exists() for run in project.runs("tiny-mlp-uniform-s2-*")), process, pause=0.05)
    assert process.poll() is None, end_of(process, project)
    run = only_run(project, 2)
    config["training"]["peak_learning_rate"] = 9e-3
    (project.folder / QUEUED).write_text(yaml.safe_dump(config, sort_keys=False))
    MLP_EDITED(project)
    assert not (run / "record.json").exists(), "the edit came too late to be one of a running training"
    code, printed = end_of(process, project)
    spec, done = (json.loads((run / name).read_text()) for name in ("spec.json", "record.json"))
    assert done["made_by"] == spec["code"]
    assert max(pq.read_table(run / "train.parquet")["learning_rate"].to_pylist()) == pytest.approx(4e-3)
    # Its evaluation would have read the edited mixer, and refuses.
    assert code != 0 and not list(run.glob("evaluation-*/evaluation.parquet")), printed
    project.edit("deconattn/mixers/mlp.py", "return max(1, 1 + round(", "return max(1, round(")
    (project.folder / QUEUED).write_text(text)
    left = project.planned(config=QUEUED)
    assert "pretrain" not in left and left["evaluate"] == 1
    assert project.deconattn("verify").returncode == 0
