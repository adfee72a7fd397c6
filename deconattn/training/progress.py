"""Progress of a training: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from deconattn.errors import UserError

Style = Literal["auto", "bar", "lines"]


class Progress:
    """Tells how far a run is and when it will end.

    What is said goes to `log` (appended, so that all attempts of a run stay readable) and to standard error: as a
    bar ("bar"), or as a line each tenth of the run and each minute ("lines"). "auto" takes the bar where standard
    error is a terminal.
    """

    def __init__(self, name: str, steps: int, log: Path, style: Style) -> None:
        self.name, self.steps = name, steps
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self.log: TextIO = log.open("a", buffering=1)
        except OSError as error:
            raise UserError(f"{log}: cannot be written ({error.strerror})") from None
        self.bar: RichProgress | None = None
        if style == "bar" or (style == "auto" and sys.stderr.isatty()):
            self.bar = RichProgress(
                TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn(),
                console=Console(stderr=True),
            )  # fmt: skip
            self._task = self.bar.add_task(name, total=steps, status="")
            self.bar.start()
        self.start(0)

    def start(self, done: int) -> None:
        """Time left is reckoned from here: a resumed run has `done` updates behind it that took no time now."""
        self.first = done
        self.started = self._spoken = time.monotonic()
        self._tenth = 10 * done // self.steps
        if self.bar:
            self.bar.reset(self._task, completed=done, total=self.steps)

    def say(self, text: str) -> None:
        """A line that is worth reading by itself."""
        try:
            self.log.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
        except OSError:
            pass  # a full disk: the checkpoint will say so, and standard error has the line
        if self.bar:
            self.bar.console.print(f"{self.name}: {text}", highlight=False)
        else:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def step(self, done: int, loss: float, tokens_per_second: float) -> None:
        """After `done` updates."""
        status = f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s"
        if self.bar:
            self.bar.update(self._task, completed=done, status=status)
            return
        now, tenth = time.monotonic(), 10 * done // self.steps
        if tenth > self._tenth or now - self._spoken > 60:
            left = timedelta(seconds=round((now - self.started) / (done - self.first) * (self.steps - done)))
            self.say(f"step {done}/{self.steps}  {status}  {left} left")
            self._spoken, self._tenth = now, tenth

    def close(self) -> None:
        """End the bar, close the log."""
        if self.bar:
            self.bar.stop()
        try:
            self.log.close()
        except OSError:
            pass  # what could not be written before
