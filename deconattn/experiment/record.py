"""A result on disk: `spec.json` before it is made, `record.json` once it is whole, and the empty marker `done`.

The spec says what a result is to be made from, and its hash ends the folder's name. The record is written last, by rename,
and holds the spec, size and SHA-256 of each file, package versions, and times. Several jobs may fill one folder, each a
`part` ("0003") with a record of its own, `record-0003.json`, and a marker, `done-0003`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

SPEC, RECORD, DONE, ERROR = "spec.json", "record.json", "done", "error.txt"
CURVE = "curve.csv"
"""The curve of a run, to look at while it trains; train.parquet is the result."""
UNHASHED = ("hash", "run", "resources", "trained_as")
"""Keys of a spec that can change no result."""

_COMPUTE = ("torch", "numpy", "pyarrow", "safetensors")
PACKAGES = {
    **dict.fromkeys(("tokenizer", "tokenize", "side_text"), ("tokenizers", "numpy", "pyarrow")),
    **dict.fromkeys(("pretrain", "analyse", "measure"), _COMPUTE),
    **dict.fromkeys(("evaluate", "baselines"), (*_COMPUTE, "transformers", "tokenizers", "lm-eval", "datasets")),
    **dict.fromkeys(("aggregate", "figure", "table", "page"), ("matplotlib", "numpy", "pandas", "pyarrow")),
}
"""Packages that compute in each stage."""


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits of a value's JSON, with sorted keys: equal values, equal hashes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def hashed(spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a spec that is hashed: all that can change the result."""
    plain = {key: value for key, value in spec.items() if key not in UNHASHED}
    if "training" in plain:
        # another reaction to a loss that is not finite changes no result that is finite
        plain["training"] = {**plain["training"], "on_divergence": None}
    return plain


def spec_hash(spec: dict[str, Any]) -> str:
    """The hash that ends a folder's name."""
    return short_hash(hashed(spec))


def made_from(spec: dict[str, Any]) -> list[str]:
    """Folders that a spec names as what its result is made from, each once, in the order of JSON's sorted keys."""

    def flat(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        items = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
        return [folder for item in items for folder in flat(item)]

    return list(dict.fromkeys(flat(spec.get("made_from") or {})))


def marker(folder: Path | str, part: str = "") -> Path:
    """The empty file that marks a folder, or a part of it, as finished."""
    return Path(folder) / (f"{DONE}-{part}" if part else DONE)


def record_path(folder: Path | str, part: str = "") -> Path:
    """The record of a folder, or of a part of it."""
    return Path(folder) / (f"record-{part}.json" if part else RECORD)


def is_done(folder: Path | str, part: str = "") -> bool:
    """Whether a folder, or a part of it, is marked as finished."""
    return marker(folder, part).exists()


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None when the file is missing or broken."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(value := json.loads(path.read_bytes()), dict):
            return value
    return None


def read_record(folder: Path | str, part: str = "") -> dict[str, Any] | None:
    """The record of a folder; None when it is missing or broken."""
    record = read_object(record_path(folder, part))
    return record if record and isinstance(record.get("spec"), dict) else None


def read_spec(folder: Path) -> dict[str, Any]:
    """The spec of a folder: its spec.json or, where that is gone, its record's.

    Raises:
        UserError: neither is there, or the spec is another folder's.
    """
    path = folder / SPEC
    if not path.exists():
        if record := read_record(folder):
            return dict(record["spec"])
        raise UserError(f"{path}: no such file; snakemake writes it when it starts")
    spec = read_json(path)
    if not isinstance(spec, dict):
        raise UserError(f"{path}: not a spec (JSON object); delete it and start snakemake again")
    # A spec written by hand, for a training outside of the workflow, has no stage and any folder.
    if "stage" in spec and not folder.name.endswith(f"-{spec_hash(spec)}") and spec["stage"] != "archive":
        raise UserError(f"{path}: its hash is {spec_hash(spec)}, not that of the folder's name: edited or moved")
    return spec


def write_spec(folder: Path, spec: dict[str, Any]) -> None:
    """Write the spec that a job will read, unless it is there already."""
    old = read_object(folder / SPEC) or {}
    if "trained_as" in old:
        spec = {**spec, "trained_as": old["trained_as"]}
    if old != spec:
        write_json(folder / SPEC, spec)


def standing(folder: Path, spec: dict[str, Any], part: str = "") -> bool:
    """Whether a folder has a valid record of this spec; a record whose files are gone is removed, so that they are made again.

    Raises:
        UserError: the record is of another spec: eight digits of two hashes are the same, or an `adopt` was interrupted.
    """
    record = read_record(folder, part)
    if record is None:
        return False
    if hashed(record["spec"]) != hashed(spec):
        raise UserError(
            f"{record_path(folder, part)}: made from another spec than {folder / SPEC}, though the folder's name is the same "
            "(two hashes share their first eight digits, or deconattn adopt was interrupted); move the folder away"
        )
    for name, entry in record["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size"]:
            record_path(folder, part).unlink(missing_ok=True)
            return False
    return True


def write_record(
    folder: Path, spec: dict[str, Any], files: Iterable[str], part: str = "", **facts: Any
) -> dict[str, Any]:
    """Write the record of what a job has made: spec, files, versions and `facts`."""
    sums = {name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in files}
    plain = {key: value for key, value in spec.items() if key != "resources"}
    record = sealed({**facts, "spec": plain, "files": sums, "versions": versions(spec.get("stage", "pretrain"))})
    write_json(record_path(folder, part), record)
    return record


def mark(folder: Path, part: str = "") -> None:
    """Mark a folder, or a part of it, as finished."""
    marker(folder, part).touch()
    (folder / ERROR).unlink(missing_ok=True)


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with a sum over itself, by which damage is noticed."""
    plain = {key: value for key, value in record.items() if key != "sum"}
    return {**plain, "sum": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


@cache
def versions(stage: str) -> dict[str, str]:
    """Versions of Python and of the packages that compute in a stage, as installed; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES.get(stage, ("pyarrow",)):
        found[name] = "not installed"
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def locked(folder: Path, part: str = "") -> Iterator[None]:
    """One job at a time fills a folder, or a part of it. Where the file system has no locks, renames alone keep it whole."""
    with open(folder / (f".lock-{part}" if part else ".lock"), "w", encoding="utf-8") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Leave the last line of an error in the folder, for a report that has a gap there; that of an earlier attempt goes."""
    with contextlib.suppress(OSError):
        if os.environ.get("RANK", "0") == "0":  # under torchrun another process may have failed already
            (folder / ERROR).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        said = lines[-1] if isinstance(error, UserError) else f"{type(error).__name__}: {lines[-1]}"
        with contextlib.suppress(OSError), atomic_write(folder / ERROR) as temporary:
            temporary.write_text(said + "\n", encoding="utf-8")
        raise


def last_attempt(folder: Path) -> str:
    """Why a result is missing: the last line of its last attempt, or that there was none."""
    for path in (folder / ERROR, folder / "log" / "pretrain.log"):
        with contextlib.suppress(OSError):
            if lines := path.read_text(encoding="utf-8", errors="replace").strip().splitlines():
                return lines[-1] if path.name == ERROR else f"not finished: {lines[-1]}"
    return "not run yet"


def amount(value: Any) -> float:
    """A number of a record; 0 for anything else, as in a damaged record."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if good else 0.0
