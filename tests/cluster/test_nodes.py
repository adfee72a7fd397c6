"""One training over two nodes, a torchrun on each, started by srun in one job, where jobs may not be requeued."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import training
from tests.cluster.cluster import Slurm
from tests.cluster.test_interruptions import memory, targets, undisturbed
from tests.project import Project
from tests.training import PATIENCE, checkpoints, curve, resumed, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


def test_a_training_on_two_nodes_that_is_stopped_and_may_not_be_requeued_is_the_same(
    short_project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    project = short_project
    one, two = "gpus: 1, memory_mb: 1600, processes: 1,", "gpus: 2, memory_mb: 1600, processes: 2, nodes: 2,"
    project.edit("config/test.yaml", one, two)
    project.edit("profiles/slurm/config.yaml", "slurm-requeue: true", "slurm-no-requeue: true")
    run = next(run for run in project.runs() if "rndembqk" in run.name)
    log = tmp_path / "snakemake.log"
    process = slurm.launch(project, log, "--retries", "1", *targets([run]))
    wait_for(lambda: len(checkpoints(run)) > 0, process, pause=0.05)
    job = slurm.job_of(run)
    assert job, log.read_text()
    slurm.call("scancel", "--signal=USR1", job["JobId"])
    assert process.wait(timeout=PATIENCE) == 0, log.read_text() + training.log(run)
    first, second = slurm.jobs_of(project, "pretrain", run)
    assert f"job {first['JobId']} could not be requeued" in training.log(run) and len(resumed(run)) == 1
    assert first["JobState"] == "FAILED" and second["JobState"] == "COMPLETED"
    assert first["NumNodes"] == second["NumNodes"] == "2" and memory(first) == memory(second)
    twin = undisturbed(project, run, tmp_path / "twins")
    for ours, theirs in zip(curve(run)[:20], curve(twin)[:20], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)  # sums of float32 in another order
