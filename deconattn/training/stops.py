"""Stopping in time: by a deadline, by SIGUSR1 or by SIGTERM, agreed across processes (exit code 75, "try again")."""

from __future__ import annotations

import signal
import time
from types import FrameType

import torch
import torch.distributed as dist

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the scheduler's retry resumes from the checkpoint


class Stopped(Exception):
    """The run was asked to stop before its end and has saved what it had."""


class StopWatch:
    """Collects the wishes to stop. `deadline_minutes` counts from this object's making; 0 or None means no deadline."""

    def __init__(self, deadline_minutes: float | None, margin_seconds: float) -> None:
        self.reason: str | None = None
        self.deadline = time.monotonic() + deadline_minutes * 60 - margin_seconds if deadline_minutes else None
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)
        # Slurm sends SIGCONT with every signal: its default action is harmless, so it has no handler here.

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    def wanted(self) -> str | None:
        """Why to stop now, or None. With several processes, one wish stops all at the same step."""
        if self.reason is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "deadline"
        if not dist.is_initialized():
            return self.reason
        flag = torch.tensor([1 if self.reason else 0])
        if dist.get_backend() == "nccl":
            flag = flag.cuda()
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return (self.reason or "another process was asked to stop") if flag.item() else None
