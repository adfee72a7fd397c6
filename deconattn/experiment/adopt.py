"""Keep a result under the name that today's code gives it, where the code has changed and the result has not.

`adopt OLD NEW` renames a folder and the results that were made from it, whose names follow from its own. Each keeps the code
that its own name has, and its record notes what it was. Tables and figures name runs in what they show: they are made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.code import code_of
from deconattn.experiment.record import DONE, ERROR, RECORD, SPEC, mark, read_object, read_record, sealed, spec_hash
from deconattn.experiment.results import begun, folders, stem
from deconattn.files import write_json


@dataclass(frozen=True)
class Move:
    """A folder to be renamed, with its spec before and after."""

    old: Path
    new: Path
    was: dict[str, Any]
    spec: dict[str, Any]


def plan_moves(old: Path, new: Path, owner_of: Callable[[Path], str | None]) -> list[Move]:
    """What adopting `old` as `new` renames, each after what it is made from; `owner_of`: who trains in a folder now.

    Raises:
        UserError: `old` is no result, `new` is not `old` with today's code, or a new place is taken.
    """
    spec = _spec(old)
    if spec is None or "code" not in spec:
        raise UserError(f"{old}: no result that could be adopted: no {RECORD} or {SPEC} there names its code")
    changed = {**spec, "code": code_of(spec)}
    wanted = old.with_name(f"{stem(old.name)}-{spec_hash(changed)}")
    if new != wanted:
        raise UserError(
            f"{new}: not {old} with the code as it stands, which would be {wanted}; settings and sources cannot be adopted"
        )
    moves = {old: Move(old, new, spec, _named(changed, new))}
    for folder, kind in reversed(folders().items()):
        below = _spec(folder)
        if kind in ("tables", "exhibits") or below is None or folder in moves:
            continue
        text = json.dumps(below)
        for move in moves.values():
            for before, after in ((move.old, move.new), (move.old.name, move.new.name)):
                text = text.replace(json.dumps(str(before)), json.dumps(str(after)))
        # New names too: of an adoption that was interrupted and is done again.
        if any(json.dumps(str(move.new)) in text for move in moves.values()):
            follows = json.loads(text)
            parent = moves[folder.parent].new if folder.parent in moves else folder.parent
            target = parent / f"{stem(folder.name)}-{spec_hash(follows)}"
            if target != folder:
                moves[folder] = Move(folder, target, below, _named(follows, target))
    for move in moves.values():
        if (move.new / RECORD).exists() and move.new != move.old:
            raise UserError(f"{move.new}: is there already, with a record; delete it or keep it")
        if owner := owner_of(move.old):
            raise UserError(f"{move.old}: being worked on by {owner}")
    return list(moves.values())


def _spec(folder: Path) -> dict[str, Any] | None:
    """The spec of a finished or begun result."""
    found = (read_record(folder) or {}).get("spec") or (read_object(folder / SPEC) if begun(folder) else None)
    return found if isinstance(found, dict) and "stage" in found else None


def _named(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A spec with the name and hash that a run's has."""
    return {**spec, "run": folder.name, "hash": spec_hash(spec)} if spec["stage"] == "pretrain" else spec


def adopt(moves: list[Move], reason: str) -> None:
    """Rename the folders of `plan_moves`."""
    # Markers first: if this is interrupted, nothing is taken for finished.
    for move in moves:
        (move.old / DONE).unlink(missing_ok=True)
    for move in reversed(moves):  # what lies inside another folder before that one
        _rewrite(move, reason)
    where: dict[Path, Path] = {}
    for move in moves:
        _make_way(move.new)
        os.rename(where.get(move.old.parent, move.old.parent) / move.old.name, move.new)
        where[move.old] = move.new
    for move in moves:
        if (move.new / RECORD).exists():
            mark(move.new)


def _rewrite(move: Move, reason: str) -> None:
    """Write the new spec, and into the record a note of what it was."""
    record, spec = read_record(move.old), move.spec
    if record:
        note = {"from": str(move.old), "to": str(move.new), "code": move.was.get("code"), "reason": reason,
                "when": datetime.now().isoformat(timespec="seconds")}  # fmt: skip
        plain = {key: value for key, value in record.items() if key != "sum"}
        write_json(move.old / RECORD, sealed({**plain, "spec": spec, "adopted": [*record.get("adopted", []), note]}))
    else:  # its checkpoints were written under the hash that it had when it began
        spec = {**spec, "trained_as": move.was.get("trained_as", move.was.get("hash"))}
    write_json(move.old / SPEC, spec)


def _make_way(folder: Path) -> None:
    """Delete a folder that a launch has prepared and no job has filled."""
    if folder.is_dir():
        if left := {path.name for path in folder.iterdir()} - {SPEC, ERROR, "curve.csv", ".lock", "lock", "log"}:
            raise UserError(f"{folder}: holds {min(left)}; delete it or keep it")
        shutil.rmtree(folder)
