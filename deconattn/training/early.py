"""Signals to stop in the first seconds of a process, before anything that takes long to import.

Nothing is unsaved then: the process ends at once with 75, "try again". `StopWatch` takes over when the training begins.
This module imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import sys

from deconattn.training.machine import end_with_parent

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the scheduler's retry resumes from the checkpoint
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
LAUNCHER = "DECONATTN_LAUNCHER"  # in the environment of the processes of a launcher: its process number


def stop_at_once() -> None:
    """From here on a signal ends this process with 75; so does a launcher that has gone since it started this one."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: leave(signal.Signals(number).name))
    # A launcher starts its processes with these blocked: what was sent before there were handlers arrives now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    launcher = os.environ.get(LAUNCHER)
    if launcher:
        end_with_parent()
        if os.getppid() != int(launcher):  # dead before its death was asked for, so no signal comes
            leave("the end of its launcher")


def leave(reason: str) -> None:
    """End this process with 75, and say why in one line."""
    if os.environ.get("RANK", "0") == "0":
        print(f"training: stopped by {reason}; nothing was unsaved", file=sys.stderr, flush=True)
    os._exit(EXIT_PREEMPTED)
