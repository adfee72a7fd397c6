"""Config or code edited while a job waits in a real Slurm's queue: the result is the recorded spec's, or the job refuses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cluster.test_slurm import slurm as slurm
from tests.project import CONFIG, Project

pytestmark = pytest.mark.xdist_group("cluster")
QUEUED = "config/queued.yaml"


@pytest.fixture(scope="module")
def project(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of one run whose data is made: what is left goes through the queue."""
    project = Project.copy(tmp_path_factory.mktemp("queued") / "project")
    config = yaml.safe_load((project.folder / CONFIG).read_text())
    config["grid"] = [{"models": ["tiny"], "variants": ["mlp"], "layouts": ["uniform"], "seeds": [0]}]
    config["exhibits"] = {"figure5": {"models": ["tiny"]}}
    config["resources"]["default"]["memory_mb"] = 1500
    (project.folder / QUEUED).write_text(yaml.safe_dump(config, sort_keys=False))
    project.edit("profiles/slurm/config.yaml", "mem_mb: 4000", "mem_mb: 1500")
    made = project.snakemake("--until", "finish_tokens", "mirror_task", "--quiet", "rules", config=QUEUED)
    assert made.returncode == 0, made.stdout + made.stderr
    return project


def environment(project: Project, slurm: dict[str, str]) -> dict[str, str]:
    return {
        **project.environment(),
        "SLURM_CONF": slurm["SLURM_CONF"],
        "PATH": f"{slurm['PATH'].split(':')[0]}:{project.environment()['PATH']}",
    }


@contextmanager
def waiting(project: Project, slurm: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A launch through Slurm whose training waits in the queue, as long as the block lasts."""
    env = environment(project, slurm)
    blocker = subprocess.run(
        ["sbatch", "--parsable", "--ntasks=4", "--mem=100", "--output=/dev/null", "--wrap", "sleep 600"],
        env=env, cwd=project.folder, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    launch = subprocess.Popen(
        project.command("--profile", "slurm", "--retries", "0", config=QUEUED), cwd=project.folder, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and launch.poll() is None:
            queue = subprocess.run(
                ["squeue", "--noheader", "--states=PENDING", "--format=%i"], env=env, capture_output=True, text=True
            )
            if set(queue.stdout.split()) - {blocker}:
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"no job waited: {launch.communicate()[0] if launch.poll() is not None else 'in 120 s'}")
        yield launch
    finally:
        subprocess.run(["scancel", blocker], env=env, check=False)


@contextmanager
def running(project: Project, slurm: dict[str, str], seed: int) -> Iterator[subprocess.Popen[str]]:
    """A launch through Slurm whose training has made updates and goes on to make more."""
    launch = subprocess.Popen(
        project.command("--profile", "slurm", "--retries", "0", config=QUEUED), cwd=project.folder,
        env=environment(project, slurm), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any((run / "lock").exists() for run in project.runs(f"tiny-mlp-uniform-s{seed}-*")):
        if time.monotonic() > deadline or launch.poll() is not None:
            pytest.fail(f"no training ran: {launch.communicate()[0] if launch.poll() is not None else 'in 120 s'}")
        time.sleep(0.1)
    yield launch


def only_run(project: Project, seed: int) -> Path:
    (run,) = project.runs(f"tiny-mlp-uniform-s{seed}-*")
    return run


def test_a_config_edited_meanwhile_changes_nothing_of_what_is_queued(project: Project, slurm: dict[str, str]) -> None:
    text = (project.folder / QUEUED).read_text()
    with waiting(project, slurm) as launch:
        edited = yaml.safe_load(text)
        edited["training"]["peak_learning_rate"] = 9e-3
        edited["evaluation"]["tasks"] = ["copa"]
        edited["tokenizer"]["vocab_size"] = 300
        (project.folder / QUEUED).write_text(yaml.safe_dump(edited, sort_keys=False))
    said = launch.communicate(timeout=400)[0]
    assert launch.returncode == 0, said
    run = only_run(project, 0)
    spec = json.loads((run / "spec.json").read_text())
    assert spec["training"]["peak_learning_rate"] == 4e-3
    assert max(pq.read_table(run / "train.parquet")["learning_rate"].to_pylist()) == pytest.approx(4e-3)
    assert set(pq.read_table(run / "evaluation.parquet")["task"].to_pylist()) == {"copa", "rte", "heldout"}
    verified = project.deconattn("verify")
    assert verified.returncode == 0, verified.stdout
    plan = project.planned(config=QUEUED)
    assert (plan["pretrain"], plan["tokenize"]) == (1, 2), "the edited config is another run, and still to be done"
    (project.folder / QUEUED).write_text(text)
    assert project.planned(config=QUEUED) == {}, "the recorded config is done"


def test_code_edited_meanwhile_is_refused_in_one_line(project: Project, slurm: dict[str, str]) -> None:
    project.edit(QUEUED, "  - 0\n", "  - 0\n  - 1\n")
    with waiting(project, slurm) as launch:
        project.edit("deconattn/mixers/mlp.py", "return 3 * config", "return 1 + 3 * config")
    said = launch.communicate(timeout=400)[0]
    assert launch.returncode != 0, said
    run = only_run(project, 1)
    assert not (run / "done.json").exists() and not list(run.glob("checkpoints/step-*"))
    logs = "\n".join(path.read_text() for path in (project.folder / ".snakemake").rglob("*.log"))
    lines = [line for line in logs.splitlines() if "was edited since; start snakemake again" in line]
    assert lines and all(f"{run.name}/spec.json: written for code" in line for line in lines), logs[-3000:]
    assert "InputFunctionException" not in logs + said and "Traceback" not in logs
    project.edit("deconattn/mixers/mlp.py", "return 1 + 3 * config", "return 3 * config")
    assert project.planned(config=QUEUED)["pretrain"] == 1


def test_what_is_edited_while_a_training_runs_is_no_part_of_it(project: Project, slurm: dict[str, str]) -> None:
    config = yaml.safe_load((project.folder / QUEUED).read_text())
    config["grid"][0]["seeds"], config["training"]["steps"] = [2], 3000
    text = yaml.safe_dump(config, sort_keys=False)
    (project.folder / QUEUED).write_text(text)
    with running(project, slurm, 2) as launch:
        run = only_run(project, 2)
        config["training"]["peak_learning_rate"] = 9e-3
        (project.folder / QUEUED).write_text(yaml.safe_dump(config, sort_keys=False))
        project.edit("deconattn/mixers/mlp.py", "return 3 * config", "return 1 + 3 * config")
        assert not (run / "done.json").exists(), "the edit came too late to be one of a running training"
    said = launch.communicate(timeout=400)[0]
    spec, done = (json.loads((run / name).read_text()) for name in ("spec.json", "done.json"))
    assert done["code"] == spec["code"]
    assert max(pq.read_table(run / "train.parquet")["learning_rate"].to_pylist()) == pytest.approx(4e-3)
    # Its evaluation would have read the edited mixer, and refuses.
    assert launch.returncode != 0 and not (run / "evaluation.parquet").exists(), said
    project.edit("deconattn/mixers/mlp.py", "return 1 + 3 * config", "return 3 * config")
    (project.folder / QUEUED).write_text(text)
    left = project.planned(config=QUEUED)
    assert "pretrain" not in left and left["evaluate"] == 1
    assert project.deconattn("verify").returncode == 0
