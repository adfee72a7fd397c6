"""Results that no config names any more, which of them may be in use, and their deletion; never mirror or reports."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.readable import duration
from deconattn.experiment.record import SPEC, made_from, read_object, read_record
from deconattn.experiment.results import folders

Owner = Callable[[Path], str | None]


@dataclass
class Orphan:
    """A folder that no config names: bytes that its deletion frees, hours since something was written in it, why it is kept."""

    path: Path
    bytes: int
    hours: float
    finished: bool
    kept: str | None = None


def named(configs: Sequence[Path]) -> set[Path]:
    """Every folder of results that a configuration names, whole or as a partial report."""
    settings = load_settings(configs)
    return {Path(folder) for partial in (False, True) for folder in Identity(settings, partial).artefacts}


def orphans(sets: Iterable[Sequence[Path]]) -> tuple[list[Orphan], list[str]]:
    """Orphans, each before what it is made from, and notes on the configs of the project's folder that are in none of `sets`.

    Args:
        sets: configs that are merged, as for snakemake, or one config each.

    Raises:
        UserError: an error in a config of `sets`: what it names cannot be known.
    """
    wanted: set[Path] = set()
    notes, given = [], set()
    for each in sets:
        given |= {config.resolve() for config in each}
        try:
            wanted |= named(each)
        except UserError as error:
            hint = "" if len(each) > 1 else f"\n(if {each[0]} is merged with others: --configfile BASE {each[0]})"
            raise UserError(f"{error}{hint}") from None
    for config in sorted(Path("config").rglob("*.y*ml")):
        if config.resolve() in given:
            continue
        try:
            more = named([config])
        except UserError:
            notes.append(f"{config}: has errors, so what it names is not known; it protects nothing (deconattn check)")
            continue
        if kept := [path for path in more - wanted if path.is_dir()]:
            notes.append(f"{config}: not given, but names {len(kept)} of these folders; they are kept")
        wanted |= more
    found = [path for path in folders() if path not in wanted]
    # What lies in a run that goes as a whole is no orphan of its own.
    return [_measured(path) for path in found if path.parent not in found], notes


def _measured(path: Path) -> Orphan:
    """Deleting a link, or a file that has other names, frees nothing."""
    files = [] if path.is_symlink() else [Path(top, name) for top, _, names in os.walk(path) for name in names]
    found = [file.lstat() for file in files if os.path.lexists(file)]  # a process at work may remove one meanwhile
    newest = max((status.st_mtime for status in found), default=path.lstat().st_mtime)
    size = sum(status.st_size for status in found if status.st_nlink == 1)
    return Orphan(path, size, max(0.0, (time.time() - newest) / 3600), read_record(path) is not None)


def keep(found: Sequence[Orphan], older_than: float, launched_within: float, owner_of: Owner) -> None:
    """Note with each orphan why it is not to be deleted: it may be in use, is a link, or what is kept was made from it.

    Args:
        older_than: hours in which nothing was written into what may be deleted.
        launched_within: hours for which jobs of a launch may wait: it wrote the spec of each when it started.
        owner_of: who trains in a folder now.
    """
    for orphan in found:
        path, spec = orphan.path, orphan.path / SPEC
        asked = (time.time() - spec.stat().st_mtime) / 3600 if spec.exists() else float("inf")
        waits = f"its job may still wait (--launched-within {launched_within:g})"
        reasons = (
            (path.is_symlink(), f"a link to {path.resolve()}; remove link and folder by hand"),
            ((owner := owner_of(path)) is not None, f"being worked on by {owner}"),
            (not orphan.finished and asked < launched_within, f"a launch asked for it {duration(asked)} ago: {waits}"),
            (orphan.hours < older_than, f"written to {duration(orphan.hours)} ago (--older-than {older_than:g})"),
        )
        orphan.kept = next((why for holds, why in reasons if holds), None)
    going = {orphan.path: orphan for orphan in found if not orphan.kept}
    kept = {orphan.path for orphan in found if orphan.kept}
    # Nothing is ever added to a table or figure that no config names, so it does not keep what it was made from.
    staying = [path for path, kind in folders().items() if kind not in ("tables", "exhibits") or path in kept]
    waiting = [path for path in staying if not going.keys() & {path, path.parent}]
    while waiting:
        path = waiting.pop()
        spec_of = read_object(path / SPEC) or (read_record(path) or {}).get("spec") or {}
        for source in map(Path, made_from(spec_of)):
            if source in going:
                going.pop(source).kept = f"{path} stays and was made from it"
                waiting.append(source)


def delete(orphan: Orphan, owner_of: Owner) -> None:
    """Delete a folder; where that fails, note why it is kept."""
    if owner := owner_of(orphan.path):  # since it was listed
        orphan.kept = f"being worked on by {owner}"
        return
    try:
        shutil.rmtree(orphan.path)
    except OSError as error:
        orphan.kept = f"could not be deleted: {error.filename}: {error.strerror}"
