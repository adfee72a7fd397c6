"""Results that no config names any more: what they take, how old they are, and their deletion when it is asked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment import in_use
from deconattn.experiment.adoptions import FILE as ADOPTIONS
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.in_use import named
from deconattn.experiment.settings import load_settings

KINDS = ("runs", "tokens", "tokenizers", "sidetexts")
"""Folders of results that are named by what they are, what is made before what it is made from. The mirror and the
reports are never touched."""


@dataclass(frozen=True)
class Orphan:
    """A folder that no config names: bytes that its deletion frees, and hours since anything was written in it."""

    path: Path
    bytes: int
    hours: float
    finished: bool


def orphans(
    configs: Iterable[Path], others: Iterable[Path] = (), merged: Iterable[Sequence[Path]] = ()
) -> tuple[list[Orphan], list[str]]:
    """Orphans, the largest first, and what is to be said of `others`: configs that were not given but count as well.

    Args:
        configs: each by itself; `config/adoptions.yaml`, which `config/*.yaml` gives too, is none and passed over.
        others: configs that may have errors.
        merged: sets of configs that are merged, as for snakemake; their members need not stand alone.

    Raises:
        UserError: one of `configs` or `merged` is wrong: what it names cannot be known then.
    """
    wanted: set[Path] = set()
    notes = []
    sets = [list(each) for each in merged]
    inside = {config.resolve() for each in sets for config in each}
    alone = [config for config in configs if config.name != ADOPTIONS.name]
    sets += [[config] for config in alone if config.resolve() not in inside]
    for each in sets:
        try:
            wanted |= named(Identity(load_settings(each)))
        except UserError as error:
            hint = "" if len(each) > 1 else f"\n(if {each[0]} is merged with others: --configfile BASE {each[0]})"
            raise UserError(f"{error}{hint}") from None
    for config in others:
        if config.resolve() in inside:
            continue
        try:
            more = named(Identity(load_settings([config])))
        except UserError:
            notes.append(f"{config}: has errors, so what it names is not known; it protects nothing (deconattn check)")
            continue
        if kept := [path for path in more - wanted if path.is_dir()]:
            notes.append(f"{config}: not given, but names {len(kept)} of these folders; they are kept")
        wanted |= more
    found = [
        _measured(path) for kind in KINDS for path in (RESULTS / kind).glob("*") if path.is_dir() and path not in wanted
    ]
    return sorted(found, key=lambda orphan: (-orphan.bytes, orphan.path)), notes


def _measured(path: Path) -> Orphan:
    """Links are not followed: what they point to is not freed. A file with several names is freed with the last of them."""
    newest = 0.0
    files: dict[tuple[int, int], list[int]] = {}
    for folder, below, names in os.walk(path) if not path.is_symlink() else ():
        for name in [*names, *below]:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue  # a process at work has removed it meanwhile
            if name in names or os.path.islink(os.path.join(folder, name)):
                newest = max(newest, status.st_mtime)
                file = files.setdefault((status.st_dev, status.st_ino), [status.st_size, status.st_nlink, 0])
                file[2] += 1
    size = sum(each for each, links, seen in files.values() if seen >= links)
    done = (path / "done.json").is_file() or path.parent.name != "runs"
    return Orphan(path, size, max(0.0, (time.time() - (newest or path.lstat().st_mtime)) / 3600), done)


def other_configs(configs: Iterable[Path]) -> list[Path]:
    """The configs of the project's folder that were not given."""
    given = {config.resolve() for config in configs}
    found = [path for kind in ("yaml", "yml") for path in Path("config").rglob(f"*.{kind}")]
    return [path for path in sorted(found) if path.resolve() not in given and path.name != ADOPTIONS.name]


def reasons(found: Sequence[Orphan], older_than: float, launched_within: float) -> dict[Path, str]:
    """Orphans that are not to be deleted, with why: they may be in use, or are nothing that could be deleted.

    Args:
        older_than: hours in which nothing was written into what may be deleted.
        launched_within: hours for which jobs of a launch may wait.
    """
    kept: dict[Path, str] = {}
    launched, unknown = in_use.by_launches(launched_within)
    for orphan in found:
        path = orphan.path
        if path.is_symlink():
            kept[path] = f"a link to {os.readlink(path)}; remove link and folder by hand"
        elif path.parent.name == "runs" and (owner := in_use.owner_of(path)):
            kept[path] = f"being trained by {owner}"
        elif unknown or path in launched:
            kept[path] = f"{unknown or launched[path]} (--launched-within {launched_within:g})"
        elif orphan.hours < older_than:
            kept[path] = f"written to {in_use.age(orphan.hours)} ago (--older-than {older_than:g})"
    return in_use.made_from([orphan.path for orphan in found], kept) | kept


def delete(found: Iterable[Orphan], kept: dict[Path, str]) -> tuple[list[Orphan], dict[Path, str]]:
    """Delete the orphans that are not `kept`: those deleted, and those that could not be, with why.

    What was made goes before what it was made from, so that what is left after an interruption is whole.
    """
    deleted, failed = [], {}
    for orphan in sorted(found, key=lambda each: KINDS.index(each.path.parent.name)):
        path = orphan.path
        if path in kept:
            continue
        if path.parent.name == "runs" and (owner := in_use.owner_of(path)):
            failed[path] = f"being trained by {owner}"  # since it was listed
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            failed[path] = f"could not be deleted: {error.filename}: {error.strerror}"
            continue
        deleted.append(orphan)
    return deleted, failed
