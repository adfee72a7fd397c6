"""One writer a run: a lock in the run's folder that outlives a crash of its owner, on one machine or several.

Each owner of a run makes a file `lock/NNNNNN.json` with a number one higher than the last; the highest number owns the run.
Making it is exclusive, so of several that want a free run one gets it, and none can remove another's. The number is a
fencing token too (Kleppmann, 2016): an owner that slept through losing the run finds a higher one before it writes.

The file says who the owner is (host, process, job) and ends in a counter that the owner raises while it lives. A run is free
when its owner has left; when its process is gone, which those on the same machine can see at once; or when the counter has
stood still for `STALE_SECONDS` by the watcher's own clock. No two clocks are ever compared, and none that can be set back
is read.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.training.machine import start_of

STALE_SECONDS = 60.0  # a counter that stood still for so long belongs to nobody; beats are a twelfth of it apart
PATIENCE_SECONDS = 1800.0  # for an owner that was asked to leave, and still lives, to save and go
_LEFT = "left"
_WIDTH = 20  # of the counter: rewritten in place, which needs no space on a disk that is full


def this_process() -> dict[str, Any]:
    """Who this is: host, process and job, and what tells its process from a later one of the same number."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "since": datetime.now().isoformat(timespec="seconds"),
        "machine": _machine(),
        "started": start_of(os.getpid()),
    }


def _machine() -> str | None:
    """What two processes have in common that can see each other: this boot of a machine, and its process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


@dataclass(frozen=True)
class Owner:
    """An owner's file as it was read: who it is and the state of its counter; `who` is empty for a file cut short."""

    number: int
    who: dict[str, Any]
    beat: str

    @property
    def is_here(self) -> bool:
        """Whether this machine can see its process, alive or dead."""
        return self.who.get("started") is not None and self.who.get("machine") == _machine() is not None

    @property
    def is_gone(self) -> bool:
        """Whether it has left, or its process is known to be dead."""
        return self.beat == _LEFT or (self.is_here and start_of(self.who["pid"]) != self.who["started"])

    def __str__(self) -> str:
        job = f", job {self.who['job']}" if self.who.get("job") else ""
        return f"process {self.who.get('pid')} on {self.who.get('host')}{job}, since {self.who.get('since')}"


class RunLock:
    """The lock of one run. Files lie in `folder`; `stale_seconds` is after how long a silent owner counts as dead."""

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS) -> None:
        self.folder, self.stale_seconds = folder, stale_seconds
        self.beat_seconds = stale_seconds / 12
        self._number: int | None = None
        self._beats = 0

    def acquire(self, take_over: bool = False, patience: float = PATIENCE_SECONDS) -> None:
        """Own the run from here on. With `take_over` a live owner is asked to save and leave, and waited for.

        Raises:
            UserError: the run has a live owner, or one that did not leave; or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._claim(self._wait_until_free(take_over, patience)):
                pass
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from None

    def _claim(self, number: int) -> bool:
        path = self._path(number)
        try:
            with open(path, "x") as stream:
                stream.write(json.dumps(this_process()) + "\n" + f"{0:0{_WIDTH}d}")
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            return False
        except OSError:
            path.unlink(missing_ok=True)
            raise
        if self._highest() != number:  # it looked into the folder before there was anything there
            return False
        self._number = number
        for old in self.folder.iterdir():
            if old.name[:6].isdigit() and int(old.name[:6]) < number:
                old.unlink(missing_ok=True)
        return True

    def _wait_until_free(self, take_over: bool, patience: float) -> int:
        """The number to claim, once the run is free."""
        first: Owner | None = None
        seen: Owner | None = None
        began = still_since = time.monotonic()
        while True:
            number = self._highest()
            owner = self._read(number) if number else None
            if owner is None or owner.is_gone:
                return number + 1
            now = time.monotonic()
            if seen is None or (owner.number, owner.beat) != (seen.number, seen.beat):
                seen, still_since = owner, now
            first = first or owner
            alive = owner.is_here or (owner.number, owner.beat) != (first.number, first.beat)
            if not owner.is_here and now - still_since > self.stale_seconds:
                return number + 1
            if alive and not take_over:
                raise UserError(f"{self.folder.parent}: already being trained by {owner}; wait for it or end it first")
            if alive and now - began > patience:
                raise UserError(f"{self.folder.parent}: {owner} was asked to leave {patience:.0f} s ago and has not")
            if take_over:
                self._ask(number)
            time.sleep(min(0.2, self.beat_seconds))

    def _ask(self, number: int) -> None:
        asked = self._path(number).with_suffix(".ask")
        if not asked.exists():
            asked.write_text(json.dumps(this_process()))

    # ---- for the owner ----------------------------------------------------------------------------------------------
    def beat(self) -> str | None:
        """Show that the owner lives; returns who wants the run, if someone asked for it or has taken it."""
        self._beats += 1
        self._write_beat(f"{self._beats:0{_WIDTH}d}")
        assert self._number is not None
        try:
            if self._highest() > self._number:
                return "another process, which took the run over"
            asked = self._path(self._number).with_suffix(".ask")
            if asked.exists():
                return f"{Owner(0, json.loads(asked.read_text() or '{}'), '')}, which goes on with the run"
        except (OSError, ValueError):
            pass  # a file system that does not answer for a moment; the next beat looks again
        return None

    def check(self) -> None:
        """Raise `UserError` when the run has another owner by now. Beats first: on NFS, what was looked up is fresh then."""
        self._beats += 1
        self._write_beat(f"{self._beats:0{_WIDTH}d}")
        highest = self._highest()
        if self._number is not None and highest != self._number:
            raise UserError(
                f"{self.folder.parent}: taken over by {self._read(highest) or 'another process'} while this one did not "
                "respond; nothing was written"
            )

    def release(self) -> None:
        """Leave the run. The file stays: it says who was the last, and keeps the numbers rising."""
        if self._number is not None:
            self._write_beat(f"{_LEFT:<{_WIDTH}}")
            self._number = None

    def _write_beat(self, text: str) -> None:
        try:
            with open(self._path(self._number or 0), "r+") as stream:
                stream.seek(os.fstat(stream.fileno()).st_size - _WIDTH)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            pass  # the disk is full or away: others will see a silent owner, and it will see them before it writes

    # ---- files --------------------------------------------------------------------------------------------------------
    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _highest(self) -> int:
        return max((int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit()), default=0)

    def _read(self, number: int) -> Owner | None:
        try:
            who, _, beat = self._path(number).read_text().partition("\n")
            return Owner(number, json.loads(who), beat.strip())
        except FileNotFoundError:
            return None  # a newer owner has tidied up
        except ValueError:
            return Owner(number, {}, "")
