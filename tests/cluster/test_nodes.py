"""One training over two nodes: a torchrun on each, started by srun in one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.cluster import Slurm
from tests.cluster.test_interruptions import PATIENCE, snakemake, text_of, undisturbed
from tests.project import Project
from tests.training import curve

pytestmark = pytest.mark.xdist_group("cluster")


def test_a_training_on_two_nodes_is_the_same(
    specified: Project, project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    project.edit(
        "config/test.yaml",
        "{gpus: 1, memory_mb: 1500, processes: 1,",
        "{gpus: 2, memory_mb: 1500, processes: 2, nodes: 2,",
    )
    run = next(run for run in project.runs() if "rndembqk" in run.name)
    log = tmp_path / "snakemake.log"
    process = snakemake(project, slurm, log, runs=[run])
    assert process.wait(timeout=PATIENCE) == 0, log.read_text() + text_of(run)
    (job,) = (
        job for job in slurm.jobs() if run.name in job.get("Comment", "") and job["WorkDir"] == str(project.folder)
    )
    assert job["NumNodes"] == "2" and job["JobState"] == "COMPLETED"
    twin = undisturbed(specified, run, tmp_path / "twins")
    for ours, theirs in zip(curve(run)[:20], curve(twin)[:20], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)  # sums of float32 in another order
