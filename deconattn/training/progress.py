"""Progress of a training: lines on standard error and in the run's log, and its curve as it grows."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from deconattn.errors import UserError
from deconattn.experiment.record import CURVE
from deconattn.files import atomic_write

COLUMNS = ("step", "loss", "learning_rate", "tokens_per_second", "seconds", "mfu")
CURVE_SECONDS = 2.0  # between two rows of the curve; the first and the last update have one in any case


class Progress:
    """Shows how far the run in `folder` is and when it will end: a line each tenth of the run and each minute.

    Lines go to log/pretrain.log too, appended, so that all attempts of a run stay readable. curve.csv has a row of `COLUMNS`
    every two seconds at most, to be looked at while the run trains; train.parquet has all of them.
    """

    def __init__(self, name: str, steps: int, folder: Path) -> None:
        self.name, self.steps, self.folder = name, steps, folder
        log = folder / "log" / "pretrain.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self.log = log.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{log}: cannot be written ({error.strerror})") from None
        self._first: int | None = None
        self._curve: TextIO | None = None

    def say(self, text: str) -> None:
        """Print and log a line."""
        with suppress(OSError):  # a full disk: the checkpoint will say so, and standard error has the line
            self.log.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def step(self, row: dict[str, Any]) -> None:
        """An update is made. The time left is reckoned from the attempt's first, which may have compiled."""
        done, now = row["step"], time.monotonic()
        with suppress(OSError):
            if self._curve is None:
                self._curve = self._curve_before(done)
                self._drawn = -CURVE_SECONDS
            if now - self._drawn >= CURVE_SECONDS or done == self.steps:
                values = (row.get(name) for name in COLUMNS[1:])
                fields = [str(done), *("" if value is None else f"{value:.7g}" for value in values)]
                self._curve.write(",".join(fields) + "\n")
                self._drawn = now
        tenth = 10 * done // self.steps
        if self._first is None:
            self._first, self._tenth = done, 10 * (done - 1) // self.steps
            self._started = self._spoken = now
        elif tenth > self._tenth or now - self._spoken > 60:
            left = timedelta(seconds=round((now - self._started) / (done - self._first) * (self.steps - done)))
            status = f"loss {row['loss']:.4f}  {row['tokens_per_second']:,.0f} tokens/s"
            self.say(f"step {done}/{self.steps}  {status}  {left} left")
            self._spoken, self._tenth = now, tenth

    def _curve_before(self, step: int) -> TextIO:
        """The curve, open at its end, without rows from `step` on: of an attempt that came further than its checkpoint."""
        path, kept = self.folder / CURVE, [",".join(COLUMNS) + "\n"]
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[1:]:
                fields = line.split(",")
                is_whole = line.endswith("\n") and len(fields) == len(COLUMNS) and fields[0].isdigit()
                if is_whole and int(fields[0]) < step:
                    kept.append(line)
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        return path.open("a", buffering=1, encoding="utf-8")

    def close(self) -> None:
        """Close the log and the curve."""
        for stream in filter(None, (self.log, self._curve)):
            with suppress(OSError):  # what could not be written before
                stream.close()
