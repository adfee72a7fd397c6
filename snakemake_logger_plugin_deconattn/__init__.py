"""One line of progress for a launch: how far it is, how long it will take, what runs now.

Snakemake's logger plugin `deconattn` (`snakemake --logger deconattn`; the profiles name it where the package is installed).
What the jobs print goes into `.snakemake/log/<time>.jobs.log`, whose path is printed at the end. Of a job that fails, the error
that it has left in its folder is shown.
If standard error is no terminal, each start and end of a job is a plain line. A dry run, `--verbose` and `--printshellcmds`
leave it to Snakemake's own handler.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, RenderableColumn
from rich.table import Column
from rich.text import Text
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

TARGET = "all"
WORK = {"pretrain": 10, "evaluate": 6, "analyse": 4, "measure": 6}
"""Rule → how many times as long as any other job it takes in the demo, for the time left."""
OF_A_JOB = "RuleException:\nCalledProcessError"  # Snakemake's words for a job whose failure is shown anyway
STOPS = ("Terminating processes on user request", "Will exit after finishing currently running jobs")
SHOWN = (*STOPS, "Nothing to be done", "Trying to restart job", "Creating report")
"""Beginnings of Snakemake's messages that are shown; of the others, warnings and errors are."""


class LogHandler(LogHandlerBase):
    """Takes Snakemake's events, which come from one thread, and shows them."""

    writes_to_stream, writes_to_file = True, False
    has_filter = has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        options = self.common_settings
        own = options.dryrun or options.verbose or options.printshellcmds or options.debug_dag
        self.snakemakes = _snakemakes_handler(options) if own else None
        self.screen = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
        self.log: TextIO | None = None
        self.bar: Progress | None = None
        self.started = time.monotonic()
        self.total = self.done = self.failed = 0  # jobs
        self.work = self.work_done = 0
        self.stopping = False
        self.running: dict[int, tuple[str, str, float]] = {}  # rule, label, start

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        if self.snakemakes:
            self.snakemakes.handle(record)
            return
        try:
            self._take(getattr(record, "event", None), record)
            if self.bar:
                self.bar.update(self.bar.task_ids[0], completed=self.done)
        except Exception:
            self.handleError(record)

    def _take(self, event: LogEvent | None, record: Any) -> None:
        if event == LogEvent.WORKFLOW_STARTED:
            self._redirect_output()
        elif event == LogEvent.RUN_INFO:
            todo = {rule: count for rule, count in record.stats.items() if rule not in ("total", TARGET)}
            self.total, self.started = sum(todo.values()), time.monotonic()
            self.work = sum(WORK.get(rule, 1) * count for rule, count in todo.items())
            self._start_bar() if self.total else self._say("Nothing to be done.")
        elif event == LogEvent.JOB_INFO and record.rule_name != TARGET:
            label = _label(record.rule_name, record.wildcards or {})
            self.running[record.jobid] = record.rule_name, label, time.monotonic()
            self._job(self.done + len(self.running), f"started  {label}")
        elif event == LogEvent.JOB_FINISHED and record.job_id in self.running:
            rule, label, start = self.running.pop(record.job_id)
            self.work_done += WORK.get(rule, 1)
            self.done += 1
            self._job(self.done, f"finished {label} in {_clock(time.monotonic() - start)}")
        elif event == LogEvent.JOB_ERROR:
            _, label, _ = self.running.pop(record.jobid, ("", record.rule_name, 0.0))
            if not self.stopping:
                self._job_failed(label, record)
        elif event is None or event == LogEvent.ERROR:
            self._message(record.levelno, record.getMessage())

    def _message(self, level: int, text: str) -> None:
        self.stopping |= text.startswith(STOPS)
        # What Snakemake tells of a job that failed has been told.
        is_news = level == logging.WARNING or (level > logging.WARNING and not self.failed)
        is_shown = text.startswith(SHOWN) or (is_news and not text.startswith(OF_A_JOB))
        self._say(text) if is_shown else self._note(text)

    def _job_failed(self, label: str, record: Any) -> None:
        self.failed += 1
        from deconattn.experiment.record import last_attempt

        logs = [f"its log: {file}" for file in record.log]  # of a job on a cluster
        self._say(f"failed: {label}", *(f"  {line}" for line in [last_attempt(Path(record.output[-1]).parent), *logs]))
        self._note(f"the command was: {record.shellcmd}")

    def _job(self, number: int, text: str) -> None:
        """The start or end of a job; on a terminal the bar shows it."""
        line = f"[{number:>{len(str(self.total))}}/{self.total}] {text}"
        self._note(line) if self.bar else self._say(line)

    def _say(self, *lines: str) -> None:
        """Lines that stay on the screen."""
        for line in lines:
            self._note(line)
            self.screen.print(line)

    def _note(self, text: str) -> None:
        """A text for the log alone."""
        if self.log:
            print(text, file=self.log)

    def _redirect_output(self) -> None:
        """Send what this process and its jobs print into the log; the screen is left to this handler."""
        path = Path(f".snakemake/log/{time.strftime('%Y-%m-%dT%H%M%S')}-{os.getpid()}.jobs.log").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.log = path.open("a", buffering=1, encoding="utf-8")
        sys.stdout.flush(), sys.stderr.flush()
        self.outputs = os.dup(1), os.dup(2)
        self.screen.file = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
        os.dup2(self.log.fileno(), 1), os.dup2(self.log.fileno(), 2)

    def _start_bar(self) -> None:
        if self.screen.is_interactive and not os.environ.get("CI"):
            now = RenderableColumn(self, table_column=Column(ratio=1, no_wrap=True))
            columns = (BarColumn(bar_width=20), MofNCompleteColumn(), now)
            self.bar = Progress(*columns, console=self.screen, transient=True, expand=True, refresh_per_second=4)
            self.bar.add_task("", total=self.total)
            self.bar.start()

    def __rich__(self) -> Text:
        """Time so far, time left, what runs."""
        elapsed, running = time.monotonic() - self.started, list(self.running.values())
        ahead = ""
        if self.done:
            done = self.work_done + sum(WORK.get(rule, 1) for rule, _, _ in running) / 2  # half, while it runs
            ahead = f", about {_clock(elapsed * (self.work - done) / done)} left"
        names = [label for _, label, _ in running]
        if len(names) > 4:
            names = [f"{count} × {rule}" for rule, count in Counter(rule for rule, _, _ in running).most_common()]
        return Text(f"{_clock(elapsed)}{ahead}  {', '.join(names)}", no_wrap=True, overflow="ellipsis")

    def close(self) -> None:
        """Tell how it ended and where the log is; give standard output and error back."""
        if log := self.log:
            self.log = None
            if self.bar:
                self.bar.stop()
                self.bar = None
            if self.total:
                ended = "stopped" if self.stopping else "failed" if self.done < self.total else "done"
                failed = f", {self.failed} failed" if self.failed else ""
                jobs = f"{self.done} of {self.total} jobs in {_clock(time.monotonic() - self.started)}{failed}"
                self._say(f"{ended}: {jobs}; log: {os.path.relpath(log.name)}")
            sys.stdout.flush(), sys.stderr.flush()
            for number, output in enumerate(self.outputs, 1):
                os.dup2(output, number)
                os.close(output)
            log.close()
        super().close()


def _snakemakes_handler(options: Any) -> logging.Handler:
    """The handler that Snakemake would use."""
    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

    handler = ColorizingTextHandler(nocolor=options.nocolor, stream=sys.stdout if options.stdout else sys.stderr)
    shown = options.quiet, options.debug_dag, options.verbose, options.dryrun, options.printshellcmds
    handler.addFilter(DefaultFilter(*shown))
    handler.setFormatter(DefaultFormatter(options.quiet, options.show_failed_logs))
    return handler


def _label(rule: str, wildcards: dict[str, str]) -> str:
    """`pretrain nano-mlp-even-s0`: the rule and what tells its jobs apart, without folders and hashes."""
    paths = [Path(value) for name, value in wildcards.items() if name != "id"]
    names = [path.parent.name if path.parent.parent.name == "runs" else path.name for path in paths]
    return " ".join([rule, *(re.sub(r"-[0-9a-f]{8}$", "", name) for name in names)])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
