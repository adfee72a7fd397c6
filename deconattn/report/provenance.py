"""Where an exhibit comes from: runs, data, code and packages, as plain values without a date."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from deconattn import __version__
from deconattn.files import sha256_file
from deconattn.report.cost_results import CostResults
from deconattn.report.results import Results

_PACKAGES = ("matplotlib", "numpy", "pandas", "pyarrow")


def provenance(
    results: Results | CostResults,
    exhibit: str,
    runs: Sequence[str],
    gaps: Sequence[str],
    options: dict[str, Any],
    tables: Sequence[str] = (),
) -> dict[str, Any]:
    """What a reader needs to redo an exhibit.

    Keys: exhibit, options, runs (their ids), gaps, data (tokens id → sha256 of the tokens' manifest), code (code
    digests of the runs), packages (of the runs, with versions: each set of them that occurs), tables (file → sha256),
    commit and uncommitted_changes (whether tracked files differed from it; both null outside a repository), versions
    (of what drew it).

    Args: `tables` names collected tables that this exhibit reads beyond what all exhibits read.
    """
    shown = results.runs[results.runs["run"].isin(list(runs))]
    data = shown.dropna(subset=["data"]).drop_duplicates("data").set_index("data")["data_sha256"]
    commit, changed = repository_state(Path(__file__).parent)
    return {
        "exhibit": exhibit,
        "options": options,
        "runs": sorted(runs),
        "gaps": list(gaps),
        "data": {str(key): None if pd.isna(value) else str(value) for key, value in data.items()},
        "code": sorted(shown["code"].dropna().unique().tolist()),
        "packages": sorted(shown["packages"].dropna().unique().tolist()),
        "tables": {path.name: sha256_file(path) for path in _inputs(results.folder, {*results.READS, *tables})},
        "commit": commit,
        "uncommitted_changes": changed,
        "versions": {
            "deconattn": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def repository_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit that a folder's repository stands at, and whether tracked files differ; nulls outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _inputs(folder: Path, names: Collection[str]) -> list[Path]:
    return [path for name in sorted(names) if (path := folder / f"{name}.parquet").is_file()]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
