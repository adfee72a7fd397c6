"""A private Slurm of one machine, posing as several nodes, and what tests do to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail

HERE = Path(__file__).parent


@dataclass
class Slurm:
    """A running Slurm: `environment` has what its commands need."""

    state: Path
    environment: dict[str, str]

    @classmethod
    def start(cls, state: Path, **knobs: object) -> Slurm:
        """Start one in `state`; knobs as start-slurm.sh has them."""
        if os.geteuid() != 0 or not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged")):
            skip_or_fail("no Slurm to test on: it needs root and the packages slurm-wlm and munge")
        started = subprocess.run(
            [HERE / "start-slurm.sh", state],
            env={**os.environ, "PORT": str(_free_ports(4)), **{name: str(value) for name, value in knobs.items()}},
            capture_output=True, text=True,
        )  # fmt: skip
        found = cls(state, {})
        if started.returncode:
            found.stop()
            pytest.fail(started.stdout + started.stderr)
        found.environment = {
            "SLURM_CONF": str(state / "slurm.conf"),
            "PATH": f"{state / 'bin'}:{os.environ['PATH']}",
        }
        return found

    def stop(self) -> None:
        subprocess.run([HERE / "stop-slurm.sh", self.state, "--wipe"], check=False, capture_output=True)

    def call(self, *command: str) -> str:
        """The output of a Slurm command."""
        return subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that Slurm remembers, as scontrol shows them."""
        lines = self.call("scontrol", "show", "job", "--oneliner").splitlines()
        return [dict(item.split("=", 1) for item in line.split() if "=" in item) for line in lines if "JobId=" in line]

    def job_of(self, run: Path) -> dict[str, str] | None:
        """The running job that trains a run, by what Snakemake wrote into its comment."""
        for job in self.jobs():
            if job["JobState"] == "RUNNING" and run.name in job.get("Comment", ""):
                return job
        return None

    def revive(self) -> None:
        """Start daemons again that were killed."""
        subprocess.run([HERE / "start-slurm.sh", self.state], check=True, capture_output=True)

    def lose_node(self, node: str) -> None:
        """Kill the node's slurmd, as a crash does, and have the controller notice at once what it would after SlurmdTimeout."""
        os.kill(int((self.state / "run" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=slurmd-was-killed")


def _free_ports(count: int) -> int:
    """A port that is free with the next ones: Slurm's controller takes it, its nodes those that follow."""
    for _ in range(50):
        sockets = []
        try:
            first = socket.socket()
            first.bind(("127.0.0.1", 0))
            sockets.append(first)
            for offset in range(1, count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", first.getsockname()[1] + offset))
            return first.getsockname()[1]
        except (OSError, OverflowError):
            continue
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports")


def wait_until(what: Callable[[], object], seconds: float, why: Callable[[], str]) -> None:
    """Wait for something to hold; fail with what `why` says after `seconds`."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why()
        time.sleep(0.2)
