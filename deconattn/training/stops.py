"""Stopping in time: at a deadline, on SIGUSR1, SIGTERM or SIGINT, or because another process is to go on with the run.

In its first seconds a process ends at once (`stop_at_once`). Then a `StopWatch` listens in a thread of its own, so that it
hears signals while Python is deep in a compiler or in a matrix product. The loop looks at it between two updates, saves
and stops. Where everything is saved and the loop cannot look, as while compiling, the thread ends the process. Either
way the exit code is 75, "try again". This module imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from deconattn.training.lock import RunLock
from deconattn.training.requeue import Requeue

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the scheduler's retry resumes from the checkpoint
SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
LAUNCHER = "DECONATTN_LAUNCHER"  # in the environment of the processes of a launcher: its process number
MARGIN_SECONDS = 5.0  # beside what saving takes: for the last lines and the way out


def stop_at_once() -> None:
    """From here on a signal ends this process with 75; so does the end of the launcher that started it."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: leave(signal.Signals(number).name))
    # A launcher starts its processes with these blocked: what was sent before there were handlers arrives now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if launcher := os.environ.get(LAUNCHER):
        end_with_parent()
        if os.getppid() != int(launcher):  # dead before `end_with_parent`, so no signal comes
            leave("the end of its launcher")


def leave(reason: str, name: str = "training") -> None:
    """End this process with 75, and say why in one line."""
    try:
        if os.environ.get("RANK", "0") == "0":
            print(f"{name}: stopped by {reason}; nothing was unsaved", file=sys.stderr, flush=True)
    finally:  # nobody may read standard error any more
        os._exit(EXIT_PREEMPTED)


def end_with_parent() -> None:
    """Have Linux send this process a SIGTERM when its parent dies, so that it is no orphan."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def hear() -> tuple[socket.socket, socket.socket]:
    """(heard, speaks): the number of each signal can be read from `heard` at once, however busy the main thread is."""
    heard, speaks = socket.socketpair()
    speaks.setblocking(False)
    # Python writes each signal's number here at once; its own handlers wait for the main thread.
    signal.set_wakeup_fd(speaks.fileno(), warn_on_full_buffer=False)
    # Slurm sends SIGCONT with every signal: its default action is harmless, so it has no handler here.
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return heard, speaks


class StopWatch:
    """Collects reasons to stop.

    `deadline_minutes` counts from the start of this process; 0 or None means no deadline. `save_seconds` is how long a
    checkpoint takes, as far as is known: the deadline's stop comes early enough to finish one that has just begun, and for
    another that takes twice as long. The process keeps its `lock` alive, and another process may claim the run through it.
    In a cluster's job, a stop at the time limit is followed by a new start.
    """

    def __init__(self, deadline_minutes: float | None, folder: Path) -> None:
        self.name = folder.name
        self.lock: RunLock | None = None
        self.requeue = Requeue(folder)
        self.save_seconds = 0.0
        self._reason: str | None = None
        self._limit = deadline_minutes * 60 if deadline_minutes else None
        age = max(0.0, time.time() - psutil.Process().create_time())
        self._end = time.monotonic() + self._limit - age if self._limit else None
        self._may_end = threading.Lock()  # held by the loop whenever something is unsaved
        self._may_end.acquire()
        self._closed = False
        self._heard, self._speaks = hear()
        self._thread = threading.Thread(target=self._listen, name="stop-watch", daemon=True)
        self._thread.start()

    def reason(self) -> str | None:
        """Why to stop now, or None."""
        if self._reason is None and self._end is not None and time.monotonic() > self._end - self._margin():
            self._reason = "deadline"
        return self._reason

    def soon(self, seconds: float = 2.0) -> str | None:
        """Why to stop now or within so many seconds, or None."""
        end = time.monotonic() + seconds
        while not self.reason() and time.monotonic() < end:
            time.sleep(0.05)
        return self.reason()

    def _margin(self) -> float:
        return MARGIN_SECONDS + 3 * self.save_seconds + min(25.0, 0.02 * (self._limit or 0.0))

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """While this lasts, the process may end at any moment."""
        self._may_end.release()
        try:
            yield
        finally:
            self._may_end.acquire()

    def close(self) -> None:
        """Listen no longer; signals do again what they do by default: an error on the way out must not end as a stop."""
        self._closed = True
        self._speaks.send(b"\0")
        self._thread.join()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._heard.close()
        self._speaks.close()

    def _listen(self) -> None:
        next_beat = time.monotonic()
        while not self._closed:
            if self.lock and time.monotonic() >= next_beat:
                wanted = self.lock.beat()
                self._reason = self._reason or wanted
                next_beat = time.monotonic() + self.lock.beat_seconds
            # Look often only once a stop is requested; unsaved work ends within one update.
            patience = 0.1 if self.reason() else 1.0
            if select.select([self._heard], [], [], patience)[0]:
                for number in self._heard.recv(64):
                    if number in SIGNALS:
                        self._reason = self._reason or signal.Signals(number).name
            if self.reason() and not self._closed and self._may_end.acquire(blocking=False):
                self._end_now()

    def _end_now(self) -> None:
        for child in psutil.Process().children(recursive=True):  # such as compilers
            with suppress(psutil.Error):
                child.kill()
        if said := self.requeue.ask(self._reason or ""):
            print(f"{self.name}: {said}", file=sys.stderr)
        if self.lock:
            self.lock.release()
        leave(self._reason or "", self.name)
