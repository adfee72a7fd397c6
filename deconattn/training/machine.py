"""What Linux says about a process: when it started, whether it lives, what it started; nothing on other systems."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil


def start_of(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since the machine did; None when it is dead, or cannot be asked."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            # The name, in brackets, may hold anything; what follows it is split by spaces.
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def age_of_this_process() -> float:
    """Seconds since this process started, by a clock that cannot be set; 0 where that is not known."""
    started = start_of(os.getpid())
    if started is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))


def end_with_parent() -> None:
    """Have this process asked to stop (SIGTERM) when the one that started it dies, so that it is no orphan."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass


def end_children() -> None:
    """Kill what this process has started, such as compilers."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            pass
