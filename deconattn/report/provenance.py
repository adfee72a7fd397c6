"""Where an exhibit comes from: runs, data, code and packages, as plain values without a date."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from deconattn import __version__
from deconattn.exhibit import Exhibit
from deconattn.files import sha256_file
from deconattn.report import schema

_PACKAGES = ("jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "scipy")


def provenance(
    exhibit: Exhibit, folder: Path, runs: Sequence[str], gaps: Sequence[str], options: dict[str, Any]
) -> dict[str, Any]:
    """What a reader needs to redo an exhibit that was drawn from the tables of `folder`.

    Keys: exhibit, options, runs (their ids), gaps, data (tokens id → sha256 of the tokens' manifest), code (code
    digests of the runs), packages (of the runs, with versions: each set of them that occurs), tables (file → sha256),
    commit and uncommitted_changes (whether tracked files differed from it; both null outside a repository), versions
    (of what drew it).
    """
    known = pd.DataFrame(columns=schema.RUNS.names)
    if "runs" in exhibit.reads:
        known = schema.read_table(folder / "runs.parquet", schema.RUNS)
    shown = known[known["run"].isin(list(runs))]
    commit, changed = repository_state(Path(__file__).parent)
    files = [path for name in sorted(exhibit.reads) if (path := folder / f"{name}.parquet").is_file()]
    return {
        "exhibit": exhibit.name,
        "options": options,
        "runs": sorted(runs),
        "gaps": list(gaps),
        "data": dict(zip(shown["data"], shown["data_sha256"], strict=True)),
        "code": sorted(shown["code"].dropna().unique().tolist()),
        "packages": sorted(shown["packages"].dropna().unique().tolist()),
        "tables": {path.name: sha256_file(path) for path in files},
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
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit, *others = done.stdout.splitlines()
    return commit.removeprefix("# branch.oid "), any(not line.startswith("#") for line in others)
