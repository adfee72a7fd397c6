"""Stopping in time: by a deadline, by SIGUSR1, SIGTERM or SIGINT, or because another process is to go on with the run.

A thread of its own takes the wishes in, so that it hears them while Python is deep in a compiler or in a matrix product.
The loop asks between two updates, saves, and stops. Where nothing is unsaved and the loop cannot ask, as while compiling,
the thread ends the process at once. Either way the exit code is 75, "try again".
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deconattn.training.early import EXIT_PREEMPTED, SIGNALS
from deconattn.training.machine import age_of_this_process, end_children

MARGIN_SECONDS = 5.0  # beside what saving takes: for the last lines and the way out


class StopWatch:
    """Collects the wishes to stop.

    `deadline_minutes` counts from the start of this process; 0 or None means no deadline. `save_seconds` is how long
    saving takes as far as is known; it is stopped so early that a checkpoint takes twice as long and is still in time.
    `tick` is called every `tick_seconds`, and may return a wish of its own.
    """

    def __init__(self, deadline_minutes: float | None) -> None:
        self.reason: str | None = None
        self.save_seconds = 0.0
        self.tick: Callable[[], str | None] | None = None
        self.tick_seconds = 5.0
        self.name = "training"
        self.leave: Callable[[], None] = lambda: None
        self._limit = deadline_minutes * 60 if deadline_minutes else None
        self._end = None if self._limit is None else time.monotonic() + self._limit - age_of_this_process()
        self._may_end = threading.Lock()  # held by the loop whenever something is unsaved
        self._may_end.acquire()
        self._closed = False
        self._heard, speaks = socket.socketpair()
        self._speaks = speaks
        for one in (self._heard, speaks):
            one.setblocking(False)
        # Python writes each signal's number here at once; its own handlers wait for the main thread.
        signal.set_wakeup_fd(speaks.fileno(), warn_on_full_buffer=False)
        # Slurm sends SIGCONT with every signal: its default action is harmless, so it has no handler here.
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._listen, name="stop-watch", daemon=True)
        self._thread.start()

    @property
    def margin(self) -> float:
        """Seconds before the deadline at which to stop: more the longer saving takes, a tenth of a short deadline at least."""
        return MARGIN_SECONDS + 2 * self.save_seconds + min(25.0, 0.02 * (self._limit or 0.0))

    def wanted(self) -> str | None:
        """Why to stop now, or None."""
        if self.reason is None and self._end is not None and time.monotonic() > self._end - self.margin:
            self.reason = "deadline"
        return self.reason

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """A stretch that may be left at any moment."""
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
        for one in (self._heard, self._speaks):
            one.close()

    def _listen(self) -> None:
        next_tick = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            if self.tick and now >= next_tick:
                wish = self.tick()
                self.reason = self.reason or wish
                next_tick = time.monotonic() + self.tick_seconds
            # An unsaved stretch ends within an update, so it is worth asking often only while somebody waits for it.
            patience = 0.1 if self.wanted() else 1.0
            if select.select([self._heard], [], [], patience)[0]:
                for number in self._heard.recv(64):
                    if number in SIGNALS:
                        self.reason = self.reason or signal.Signals(number).name
            if self.wanted() and not self._closed and self._may_end.acquire(blocking=False):
                self._end_now()

    def _end_now(self) -> None:
        if os.environ.get("RANK", "0") == "0":
            print(f"{self.name}: stopped by {self.reason}; nothing was unsaved", file=sys.stderr, flush=True)
        end_children()
        self.leave()
        os._exit(EXIT_PREEMPTED)
