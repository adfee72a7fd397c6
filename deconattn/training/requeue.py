"""Back into the queue: a cluster's job that is stopped in time and has got on starts again under its own number.

Snakemake takes exit 75 for a crash and would count it as an attempt. For a job that Slurm requeues it simply waits.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SLURM_JOB = "DECONATTN_SLURM_JOB"  # its number, which the Snakefile sets in a job that is Snakemake's alone
AT_THE_LIMIT = ("deadline", "SIGUSR1")  # Slurm's warning; any other signal may mean that somebody wants the job to end


class Requeue:
    """What a job does about its stop; `folder` is the one it fills, looked at now and when it stops."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._before = folder, _saved(folder)

    def ask(self, reason: str) -> str | None:
        """Have Slurm start this job again, if it stops at its time limit and has saved something new; returns what to say.

        A job that saves nothing before its limit would start again for ever, so it ends as a failed attempt.
        """
        job = os.environ.get(SLURM_JOB)
        if not job or reason not in AT_THE_LIMIT or os.environ.get("RANK", "0") != "0":
            return None
        if _saved(self.folder) <= self._before:
            return "nothing new was saved, so that this counts as a failed attempt"
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"job {job} could not be requeued ({error}); this counts as a failed attempt"
        if done.returncode > 0:  # below 0, the requeue has ended scontrol, as it ends all of the job
            return f"job {job} could not be requeued ({' '.join(done.stderr.split())}); this counts as a failed attempt"
        return f"job {job} is in the queue again"


def _saved(folder: Path) -> set[Path]:
    """Checkpoints of a training, finished pieces of another result."""
    return {*folder.glob("checkpoints/step-*"), *folder.glob("pieces-*/*.json")}
