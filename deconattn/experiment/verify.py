"""Whether every result is what its record says: one loop over all records, those of the mirror and of `results`.

A record states size and SHA-256 of each file, and a sum of its own; its spec gives the hash that ends the folder's name. Each
checkpoint has a manifest. A folder without a record is listed as not finished. `results/reports` holds copies and is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deconattn.experiment.data_identity import MIRROR
from deconattn.experiment.record import DONE, RECORD, SPEC, hashed, read_object, sealed, spec_hash
from deconattn.experiment.results import folders
from deconattn.files import sha256_file

DAMAGED = "changed or damaged since it was written"


@dataclass
class Verification:
    """What was found: a line for each problem, folders checked by kind, folders without a record, files and bytes read."""

    problems: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def problem(self, path: Path, what: str) -> None:
        """Note a problem, once."""
        if (line := f"{path}: {what}") not in self.problems:
            self.problems.append(line)

    def sums(self, by: Path, sums: Mapping[str, Any]) -> None:
        """Check the files that the record or manifest `by` names, and count it with them."""
        self.files += 1
        self.bytes += by.stat().st_size
        for name, sha256 in sums.items():
            path = by.parent / name
            if not path.is_file():
                self.problem(path, f"missing, though {by.name} names it")
                continue
            self.files += 1
            self.bytes += path.stat().st_size
            if sha256_file(path) != sha256:
                self.problem(path, f"its SHA-256 is not the one in {by.name}: {DAMAGED}")


def verify(wanted: set[Path] | None = None, owner_of: Callable[[Path], str | None] = lambda _: None) -> Verification:
    """Check all results, or the folders of `wanted`; what is wrong with one does not keep the others from being checked.

    Args:
        owner_of: who trains in a folder now; checkpoints there are being written.
    """
    found = Verification()
    mirror = [path for path in (*MIRROR.glob("*-*"), *MIRROR.glob("packages/*")) if path.is_dir()]
    for folder, kind in sorted([*((path, "mirror") for path in mirror), *folders().items()]):
        if wanted is not None and folder not in wanted:
            continue
        try:
            for record in sorted(folder.glob("record*.json")):
                _check_record(record, found)
            for checkpoint in sorted(folder.glob("checkpoints/step-*")) if not owner_of(folder) else ():
                if manifest := read_object(path := checkpoint / "manifest.json"):
                    found.sums(path, manifest)
                else:
                    found.problem(path, "missing or not readable (JSON)")
        except Exception as error:
            found.problem(folder, f"cannot be checked further ({type(error).__name__}: {error})")
        if (folder / RECORD).exists():
            found.checked[kind] = found.checked.get(kind, 0) + 1
        else:
            found.unfinished.append(str(folder))
            if (folder / DONE).exists():
                found.problem(folder / RECORD, f"missing, though {DONE} says that the folder is finished")
    return found


def _check_record(path: Path, found: Verification) -> None:
    record = read_object(path)
    if record is None:
        return found.problem(path, "not readable as a record (JSON)")
    if record != sealed(record):
        return found.problem(path, f"not what its own sum says: {DAMAGED}")
    spec, folder = record["spec"], path.parent
    if "stage" in spec and spec["stage"] != "archive" and not folder.name.endswith(f"-{spec_hash(spec)}"):
        found.problem(path, f"its spec has the hash {spec_hash(spec)}, which is not that of the folder's name")
    written = read_object(folder / SPEC)
    if (folder / SPEC).exists() and (written is None or hashed({"stage": "pretrain", **written}) != hashed(spec)):
        found.problem(folder / SPEC, f"not the spec that {path.name} has: {DAMAGED}")
    trained = read_object(Path((spec.get("made_from") or {}).get("run") or "") / RECORD)
    if "weights" in record and trained and record["weights"] != trained["files"]["model/model.safetensors"]["sha256"]:
        found.problem(path, f"made from other weights than the record of {spec['made_from']['run']} names")
    return found.sums(path, {name: entry["sha256"] for name, entry in record["files"].items()})
