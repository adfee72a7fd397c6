"""A private Slurm of one machine, posing as several nodes, and what tests do to it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.project import CONFIG, Project

HERE = Path(__file__).parent


@dataclass
class Slurm:
    """A running Slurm: `environment` has what its commands need."""

    state: Path
    environment: dict[str, str]

    @classmethod
    def start(cls, state: Path) -> Slurm:
        """Start one in `state`."""
        if os.geteuid() != 0 or not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged")):
            skip_or_fail("no Slurm to test on: it needs root and the packages slurm-wlm and munge")
        started = subprocess.run(
            [HERE / "start-slurm.sh", state], env={**os.environ, "PORT": str(_free_ports(4))}, capture_output=True, text=True,
        )  # fmt: skip
        found = cls(state, {})
        if started.returncode:
            found.stop()
            pytest.fail(started.stdout + started.stderr)
        found.environment = {"SLURM_CONF": str(state / "slurm.conf")}
        return found

    def stop(self) -> None:
        subprocess.run([HERE / "stop-slurm.sh", self.state, "--wipe"], check=False, capture_output=True)

    def call(self, *command: str) -> str:
        """The output of a Slurm command."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def launch(self, project: Project, log: Path, *options: str, config: str = CONFIG) -> subprocess.Popen[bytes]:
        """Start `snakemake --profile slurm`, what it prints appended to `log`."""
        environment = project.environment() | self.environment
        environment["PATH"] = f"{self.state / 'bin'}:{environment['PATH']}"
        with open(log, "a") as stream:
            return subprocess.Popen(
                project.command("--profile", "slurm", *options, config=config), cwd=project.folder, env=environment,
                stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that Slurm remembers, as scontrol shows them."""
        lines = self.call("scontrol", "show", "job", "--oneliner").splitlines()
        return [dict(item.split("=", 1) for item in line.split() if "=" in item) for line in lines if "JobId=" in line]

    def jobs_of(self, project: Project, rule: str, run: Path | None = None) -> list[dict[str, str]]:
        """The jobs of a rule, or of one of its runs, by what Snakemake wrote into their comments."""
        said = f"rule_{rule}_wildcards_", run.name if run else ""
        here = [job for job in self.jobs() if job["WorkDir"] == str(project.folder)]
        return [job for job in here if all(part in job.get("Comment", "") for part in said)]

    def job_of(self, run: Path, rule: str = "pretrain") -> dict[str, str] | None:
        """The running job that trains or evaluates a run."""
        jobs = self.jobs_of(Project(run.parent.parent.parent), rule, run)
        return next((job for job in jobs if job["JobState"] == "RUNNING"), None)

    def revive(self) -> None:
        """Start daemons again that were killed."""
        subprocess.run([HERE / "start-slurm.sh", self.state], check=True, capture_output=True)

    def lose_node(self, node: str) -> None:
        """Kill the node's slurmd, as a crash does, and have the controller notice at once what it would after SlurmdTimeout."""
        os.kill(int((self.state / "run" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=slurmd-was-killed")


def _free_ports(count: int) -> int:
    """A port that is free with the next ones: Slurm's controller takes it, its nodes those that follow."""
    for first in random.sample(range(20_000, 60_000), 50):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")
