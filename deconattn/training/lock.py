"""One writer a run: a lock in the run's folder that outlives a crash of its owner, on one machine or several.

Each owner of a run makes a file `lock/NNNNNN.json` with a number one higher than the last; the highest number owns the run.
Making it is exclusive and none is ever deleted, so of several that want a free run one gets it. The number is a fencing
token too (Kleppmann, 2016): an owner that slept through losing the run finds a higher one before it writes.

The owner holds its file locked (flock), which ends with its process: whoever is on the same machine sees at once whether it
lives. For the others it touches the file: one that stands still for `STALE_SECONDS` by the watcher's own clock is a dead
owner's. No two clocks are compared. An owner that leaves sets the time to 0. One that was killed has not, and so the next
job gets more memory (`Rules.memory`).
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from deconattn.errors import UserError

STALE_SECONDS = 60.0  # an owner elsewhere that is silent for so long is dead; beats are a twelfth of it apart
PATIENCE_SECONDS = 1800.0  # for a live owner that is to leave, to save and go
LEFT = (0, 0)  # the time of an owner's file once it has left: setting it needs no space on a full disk
SILENT_HOURS = 24.0  # for `owner_of`, which does not wait: a file this old, of an owner elsewhere, was left behind
BOOT = Path("/proc/sys/kernel/random/boot_id")


def _machine() -> str:
    return BOOT.read_text(encoding="utf-8").strip() if BOOT.exists() else platform.node()


def _this_process() -> str:
    who = {"host": platform.node(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID"), "machine": _machine()}
    return json.dumps({**who, "since": datetime.now().isoformat(timespec="seconds")})


@dataclass(frozen=True)
class Owner:
    """Who a file names (empty if it was cut short), when it was touched (ns), and whether its process lives.

    `lives` is None where that cannot be seen: on another machine, or on a file system without locks.
    """

    number: int
    who: dict[str, Any]
    touched: int
    lives: bool | None

    def __str__(self) -> str:
        if not self.who:
            return "a process whose file in lock/ is cut short"
        job = f", job {self.who['job']}" if self.who["job"] else ""
        return f"process {self.who['pid']} on {self.who['host']}{job}, since {self.who['since']}"


def _read(path: Path, number: int = 0) -> Owner:
    who: dict[str, Any] = {}
    with open(path, encoding="utf-8") as stream:
        touched = os.fstat(stream.fileno()).st_mtime_ns
        with suppress(ValueError):
            who = json.load(stream)
        lives = None if touched else False
        if touched and who.get("machine") == _machine():
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                lives = False
            except BlockingIOError:
                lives = True
            except OSError:
                lives = None
    return Owner(number, who, touched, lives)


class RunLock:
    """The lock of one run. Files lie in `folder`; `stale_seconds` is after how long a silent owner elsewhere counts as dead."""

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS) -> None:
        self.folder, self.stale_seconds = folder, stale_seconds
        self.beat_seconds = stale_seconds / 12
        self._number = 0
        self._file: FileIO | None = None

    def acquire(self, take_over: bool = False, patience: float = PATIENCE_SECONDS, wait: bool = False) -> None:
        """Own the run from here on. With `take_over` a live owner is asked to save and leave, and waited for; with `wait` it is
        waited for until it ends by itself.

        Raises:
            UserError: the run has a live owner, or one that did not leave; or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._file:
                self._number = self._wait_until_free(take_over, patience, wait) + 1
                with suppress(FileExistsError):
                    self._file = open(self._path(self._number), "xb", buffering=0)
            with suppress(OSError):  # a file system without locks: silence alone tells that it is dead
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(_this_process().encode())
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from None

    def _wait_until_free(self, take_over: bool, patience: float, wait: bool) -> int:
        """The number of the last owner, once the run is free."""
        run, seen = self.folder.parent, self.owner()
        owner, began = seen, time.monotonic()
        still_since = began
        while owner and owner.lives is not False:
            now = time.monotonic()
            if owner.lives or owner != seen:
                if not (take_over or wait):
                    raise UserError(f"{run}: already being trained by {owner}; wait for it or end it first")
                if take_over and now - began > patience:
                    raise UserError(f"{run}: {owner} was asked to leave {patience:.0f} s ago and has not")
                seen, still_since = owner, now
            elif now - still_since > self.stale_seconds:
                break
            asked = self._asked(owner.number)
            if take_over and not asked.exists():
                asked.write_text(_this_process(), encoding="utf-8")
            time.sleep(min(0.2, self.beat_seconds))
            owner = self.owner()
        return owner.number if owner else 0

    def owner(self) -> Owner | None:
        """The owner of the highest number, alive or not."""
        number = max((int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit()), default=0)
        return _read(self._path(number), number) if number else None

    # ---- for the owner ----------------------------------------------------------------------------------------------
    def beat(self) -> str | None:
        """Show that the owner lives; returns who is to go on with the run, if another process claims it or has taken it."""
        with suppress(OSError):  # a file system that does not answer for a moment; the next beat looks again
            if self._is_lost():
                return "another process, which took the run over"
            if (asked := self._asked(self._number)).exists():
                return f"{_read(asked)}, which goes on with the run"
        return None

    def check(self) -> None:
        """Raise `UserError` when the run has another owner by now."""
        if self._is_lost():
            raise UserError(
                f"{self.folder.parent}: taken over by {self.owner()} while this one did not respond; nothing was written"
            )

    def release(self) -> None:
        """Leave the run."""
        if self._file:
            self._touch(LEFT)
            self._file.close()
            self._file = None

    def _is_lost(self) -> bool:
        """Whether the run has another owner by now. Touches first: on NFS, what is looked up is fresh then."""
        self._touch()
        owner = self.owner()
        return bool(self._file and owner and owner.number != self._number)

    def _touch(self, times: tuple[int, int] | None = None) -> None:
        with suppress(OSError):  # the disk is away: others see a silent owner, and it sees them before it writes
            os.utime(self._path(self._number), times)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _asked(self, number: int) -> Path:
        return self._path(number).with_suffix(".ask")


def mark_killed(run: Path) -> None:
    """Let the last owner of a run count as killed, though it has left: another of its processes was."""
    if files := sorted((run / "lock").glob("*.json")):
        os.utime(files[-1])


def owner_of(run: Path) -> str | None:
    """Who works on a run, or on another result, now, as far as can be told from here without waiting; None: nobody."""
    try:
        owner = RunLock(run / "lock").owner()
    except OSError as error:
        return f"a process that cannot be known ({error.strerror})"
    if owner is None or owner.lives is False:
        return None
    is_silent = time.time() - owner.touched / 1e9 > SILENT_HOURS * 3600
    return None if is_silent and owner.lives is None else str(owner)
