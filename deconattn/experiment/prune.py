"""Results that no config names any more: what they take, how old they are, and their deletion when it is asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.settings import load_settings

KINDS = ("runs", "tokens", "tokenizers", "sidetexts")
"""Folders of results that are named by what they are. The mirror and the reports are never touched."""


@dataclass(frozen=True)
class Orphan:
    """A folder that no config names: bytes, and hours since anything was written in it."""

    path: Path
    bytes: int
    hours: float
    finished: bool


def named(ident: Identity) -> set[Path]:
    """Every folder of results that a configuration names, under its name now and under those of adopted code."""
    found = {ident.folder(run) for run in ident.specs} | {ident.tokens}
    found |= {path.parent for spec in ident.specs.values() if (path := ident.side_path(spec))}
    found |= {ident.tokenizer}
    found |= {place.path_of(digest) for place in ident.placements for digest in place.same}
    return found


def orphans(configs: Iterable[Path], others: Iterable[Path] = ()) -> tuple[list[Orphan], list[str]]:
    """Orphans, the largest first, and what is to be said of `others`: configs that were not given but count as well.

    Raises:
        UserError: one of `configs` is wrong: what it names cannot be known then.
    """
    wanted: set[Path] = set()
    notes = []
    for config in configs:
        wanted |= named(Identity(load_settings([config])))
    for config in others:
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
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    newest = max((file.st_mtime for file in files), default=path.stat().st_mtime)
    done = (path / "done.json").is_file() or path.parent.name != "runs"
    return Orphan(path, sum(file.st_size for file in files), max(0.0, (time.time() - newest) / 3600), done)


def other_configs(configs: Iterable[Path]) -> list[Path]:
    """The configs of the project's folder that were not given."""
    given = {config.resolve() for config in configs}
    folder = Path("config")
    return [
        path for path in sorted(folder.glob("*.yaml")) if path.resolve() not in given and path.name != "adoptions.yaml"
    ]


def delete(found: Iterable[Orphan], older_than_hours: float) -> tuple[list[Orphan], list[Orphan]]:
    """Delete orphans in which nothing was written for so long: (deleted, kept because they may be in use)."""
    deleted, kept = [], []
    for orphan in found:
        if orphan.hours < older_than_hours:
            kept.append(orphan)
            continue
        shutil.rmtree(orphan.path)
        deleted.append(orphan)
    return deleted, kept
