"""The record that a stage leaves beside what it wrote: made from what, by which code and packages, with which sums.

Whether a result is up to date is decided from these records and from nothing else: not from times of files, which a copy
changes, and not from Snakemake's own notes, which a copy leaves behind.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from deconattn.experiment.code import code_digest, parts_of
from deconattn.files import sha256_file, write_json

CODE = Path("results/code")
PACKAGES = {
    "training": ("torch", "numpy", "pyarrow", "safetensors"),
    "evaluation": (
        "torch", "numpy", "pyarrow", "safetensors", "transformers", "tokenizers", "lm-eval", "datasets",
    ),
    "analysis": ("torch", "numpy", "pyarrow", "safetensors"),
    "tokens": ("tokenizers", "numpy", "pyarrow"),
}  # fmt: skip
"""Packages that compute in each stage."""


@cache
def versions(stage: str) -> dict[str, str]:
    """Version of Python and of each package that computes in a stage, read from what is installed and not imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES[stage]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def sums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """File name → SHA-256 of the files of `folder` that are there."""
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def write_record(path: Path, stage: str, modules: Sequence[str], files: Sequence[str], **facts: Any) -> dict[str, Any]:
    """Write the record of a stage beside its `files`; `facts` are what it was made from, under names of their own."""
    record = {**facts, "code": keep_code(*modules), "versions": versions(stage), "files": sums(path.parent, files)}
    write_json(path, sealed(record))
    return record


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with a sum over itself, so that damage to it can be told from what it says."""
    return {**record, "sum": _seal(record)}


def is_whole(record: dict[str, Any]) -> bool:
    """Whether a record is as it was sealed, or was written before records were."""
    return "sum" not in record or record["sum"] == _seal(record)


def _seal(record: dict[str, Any]) -> str:
    plain = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def keep_code(*modules: str) -> str:
    """Write down the digests of all functions that `modules` can reach, once for each state of the code; its digest."""
    digest = code_digest(*modules)
    path = CODE / f"{digest}.json"
    if not path.is_file():
        write_json(path, parts_of(*modules))
    return digest


def read_record(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """A record and the SHA-256 of its file; (None, None) when it is missing or broken: then nothing is proven by it."""
    try:
        data = path.read_bytes()
        value = json.loads(data)
    except (OSError, ValueError):
        return None, None
    return (value, hashlib.sha256(data).hexdigest()) if isinstance(value, dict) else (None, None)


def note_code(folder: Path, *modules: str, files: Sequence[str] = ()) -> None:
    """Write down in `record.json` which code made a folder of data, with the sums of its `files` if all of them are written."""
    path = folder / "record.json"
    if files or not path.is_file():
        facts = {"files": sums(folder, files)} if files else {}
        write_json(path, sealed({"code": keep_code(*modules), **facts}))
