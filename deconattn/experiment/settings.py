"""Settings of an experiment from YAML files: typed, complete, and every error at once with its file and line.

Imports no torch, pandas, transformers or datasets: the workflow engine loads settings in every job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment import checks, source_checks
from deconattn.experiment.messages import said, schema_problems
from deconattn.experiment.schema import Settings
from deconattn.experiment.view import View
from deconattn.experiment.yaml_lines import Problem, read

__all__ = ["ConfigError", "Settings", "flag", "load_settings"]


class ConfigError(UserError):
    """A config that cannot be run. `problems` holds one line each, in order of file and line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def flag(name: str, value: Any) -> bool:
    """What is told to the workflow with --config beside settings, as `partial` is: true or false, also as Snakemake leaves it.

    Raises:
        ConfigError: anything else, which would pass for true.
    """
    found = {"true": True, "false": False}.get(str(value).lower()) if isinstance(value, bool | str) else None
    if found is None:
        raise ConfigError([f"command line: {name}: {value!r} is not allowed; must be true or false"])
    return found


def load_settings(paths: Sequence[str | Path], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read and check a config.

    Files are merged, later over earlier, `overrides` (from the command line) over all: mappings key by key, anything
    else whole; a mapping that names its `kind` replaces the whole source. Paths in a config are seen from the working
    directory.

    Raises:
        ConfigError: whatever is wrong, all of it.
    """
    document = read(paths, overrides)
    problems = list(document.problems)
    if not document.unreadable:
        found, bad = schema_problems(Settings, document)
        view = View(document.data, bad)
        problems += found
        findings = [finding for check in (*checks.CHECKS, *source_checks.CHECKS) for finding in check(view)]
        problems += [Problem(document.place(keys), said(keys, text)) for keys, text in dict.fromkeys(findings)]
    if problems:
        problems.sort(key=lambda problem: (problem.place.rank, problem.place.line))
        raise ConfigError([str(problem) for problem in problems])
    return Settings.model_validate(document.data)
