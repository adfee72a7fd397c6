"""Where an exhibit comes from: runs, data, code and packages, as plain values without a date, and one page of them all."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from deconattn import __version__
from deconattn.exhibit import Exhibit
from deconattn.exhibits import EXHIBITS
from deconattn.files import atomic_write, read_json, sha256_file, write_json
from deconattn.report import schema

_PACKAGES = ("jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "scipy", "seaborn")


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


def write_page(records: Sequence[Path], out: Path) -> None:
    """Write provenance.html and provenance.json into `out` from the JSON files beside its tables and figures.

    Raises:
        UserError: a record that is missing or broken.
    """
    found = {path.stem: read_json(path) for path in records}
    titles = {name: EXHIBITS[name].title if name in EXHIBITS else name for name in found}
    write_text(out / "provenance.html", page("provenance.html", records=found, titles=titles))
    write_json(out / "provenance.json", {"exhibits": found})


def page(template: str, **values: Any) -> str:
    """A page of `templates/`, every value in it escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def write_text(path: Path, text: str) -> Path:
    """Write a text, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
