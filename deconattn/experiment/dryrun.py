"""What Snakemake would run, asked of Snakemake itself: its own dry run, its messages read as data.

    python -m deconattn.experiment.dryrun --configfile config/paper.yaml …

prints a JSON list of jobs. It is a process of its own, as Snakemake can be started once in a process only.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconattn.errors import UserError

MARK = "deconattn jobs: "


@dataclass(frozen=True)
class Job:
    """One job that would run: its rule, the run it belongs to ("" for none), what it writes, and Snakemake's reason."""

    rule: str
    run: str
    output: tuple[str, ...]
    reason: str


def start(configs: list[Path], options: list[str]) -> subprocess.Popen[str]:
    """Start a dry run of the workflow in the current folder."""
    if not Path("Snakefile").is_file():
        raise UserError(f"{Path.cwd()}: no Snakefile here; start it in the project's folder")
    command = [sys.executable, "-m", "deconattn.experiment.dryrun"]
    command += ["--configfile", *map(str, configs), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def jobs_of(process: subprocess.Popen[str]) -> list[Job]:
    """The jobs of a dry run that was started, but the target itself.

    Raises:
        UserError: what Snakemake said, when it could not plan.
    """
    out, said = process.communicate()
    line = next((line for line in out.splitlines() if line.startswith(MARK)), None)
    if process.returncode or line is None:
        raise UserError(said.strip() or out.strip() or "snakemake -n failed without a word")
    return [Job(**{**job, "output": tuple(job["output"])}) for job in json.loads(line.removeprefix(MARK))]


def _main(arguments: list[str]) -> int:
    from snakemake.cli import main
    from snakemake.logging import logger
    from snakemake_interface_logger_plugins.common import LogEvent

    jobs: list[dict[str, Any]] = []

    def heard(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == LogEvent.JOB_INFO and record.__dict__["rule_name"] != "all":
            seen = record.__dict__
            run = (seen["wildcards"] or {}).get("run", "")
            jobs.append(
                {"rule": seen["rule_name"], "run": str(run), "output": [str(path) for path in seen["output"]],
                 "reason": " ".join(str(seen["reason"]).split())}
            )  # fmt: skip
        return record.levelno >= logging.ERROR

    # Snakemake replaces the logger's handlers when it starts, but leaves its filters.
    logger.addFilter(heard)
    try:
        main(["--dry-run", "--nocolor", *arguments])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    print(MARK + json.dumps(jobs))
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
