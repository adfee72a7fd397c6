"""The slurm profile on a real Slurm of one machine: jobs through sbatch, a GPU where one is asked for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import skip_or_fail
from tests.project import Project

pytestmark = pytest.mark.xdist_group("cluster")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and squeue talk to a private Slurm."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged")):
        skip_or_fail("no Slurm to test on: it needs root and the packages slurm-wlm and munge")
    state = tmp_path_factory.mktemp("slurm")
    # Another Slurm may hold the usual port; CPUs are named because nproc, which OMP_NUM_THREADS rules, would say one.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = subprocess.run(
        [HERE / "start-slurm.sh", state],
        env={**os.environ, "PORT": str(port), "CPUS": "4"},
        capture_output=True,
        text=True,
    )
    if started.returncode:
        subprocess.run([HERE / "stop-slurm.sh", state, "--wipe"], check=False, capture_output=True)
        pytest.fail(started.stdout + started.stderr)
    printed = subprocess.run(
        ["bash", "-c", f"source {state}/env.sh && env -0"], check=True, capture_output=True, text=True
    ).stdout  # fmt: skip
    yield dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)
    subprocess.run([HERE / "stop-slurm.sh", state, "--wipe"], check=False, capture_output=True)


def test_the_grid_runs_through_sbatch(slurm: dict[str, str], tmp_path: Path) -> None:
    project = Project.copy(tmp_path / "project")
    project.edit(
        "config/test.yaml",
        "default: {processes: 1, threads: 1,",
        "default: {gpus: 1, memory_mb: 1500, processes: 1, threads: 1,",
    )
    project.edit("profiles/slurm/config.yaml", "mem_mb: 4000", "mem_mb: 1500")
    environment = {**project.environment(), **{name: slurm[name] for name in ("SLURM_CONF",)}}
    environment["PATH"] = f"{slurm['PATH'].split(':')[0]}:{environment['PATH']}"
    done = subprocess.run(
        project.command("--profile", "slurm", "--quiet", "rules"), cwd=project.folder, env=environment,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(pq.read_table(run / "train.parquet").num_rows == 12 for run in project.runs())
    assert len(project.runs()) == 3
    assert (project.folder / "results/reports/test/tables/table1.html").is_file()
    listed = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], env={**os.environ, **environment}, capture_output=True, text=True
    ).stdout  # fmt: skip
    trained = [line for line in listed.splitlines() if "gres:gpu" in line or "gres/gpu" in line]
    assert len(trained) >= 3, listed
