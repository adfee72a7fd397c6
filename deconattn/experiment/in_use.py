"""What of the orphans may be in use, and is therefore kept whatever is asked for.

A folder of results is in use while a process trains it, while jobs of a launch that names it may still wait in a queue,
and while something that is kept was made from it: a run needs its token table and its fixed text to go on, a token table
its tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from deconattn.experiment import code
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.launch import FOLDER, recalled
from deconattn.experiment.records import read_record
from deconattn.training.lock import RunLock

SILENT_HOURS = 24.0
"""After how long a lock whose owner is on another machine counts as left behind; a live owner writes every few seconds."""


def named(ident: Identity) -> set[Path]:
    """Every folder of results that a configuration names, under its name now and under those of adopted code."""
    found = {ident.folder(run) for run in ident.specs} | {ident.tokens}
    found |= {path.parent for spec in ident.specs.values() if (path := ident.side_path(spec))}
    found |= {ident.tokenizer}
    found |= {place.path_of(digest) for place in ident.placements for digest in place.same}
    return found


def owner_of(run: Path) -> str | None:
    """Who trains a run now, as far as can be told from here; None: nobody."""
    lock = RunLock(run / "lock")
    try:
        number = lock._highest()
        owner = lock._read(number) if number else None
        if owner is None or owner.is_gone:
            return None
        if not owner.is_here and time.time() - lock._path(number).stat().st_mtime > SILENT_HOURS * 3600:
            return None
    except FileNotFoundError:
        return None  # left and tidied up meanwhile
    except OSError as error:
        return f"a process that cannot be known ({error.strerror})"
    return str(owner) if owner.who else "a process whose file in lock/ is cut short"


def by_launches(launched_within: float) -> tuple[dict[Path, str], str]:
    """Folders that recent launches name, with whose they are; and why all is to be kept, where that cannot be known."""
    found: dict[Path, str] = {}
    for path in sorted(FOLDER.glob("*.json")):
        hours = (time.time() - path.stat().st_mtime) / 3600
        if hours >= launched_within:
            continue
        said = f"{path}, started {age(hours)} ago, names it: its jobs may still wait"
        try:
            # As the launch knew the code: what it named is found although the code was edited since.
            with code.as_known({"digests": {}, "constants": {}}):
                found |= dict.fromkeys(named(recalled(path)[1]), said)
        except Exception as error:  # of another version, or damaged: whatever it is, what it named is not known
            return {}, f"{path}, started {age(hours)} ago, cannot be read ({type(error).__name__}: {error})"
    return found, ""


def age(hours: float) -> str:
    """Hours in words."""
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def made_from(orphaned: Iterable[Path], kept: Iterable[Path]) -> dict[Path, str]:
    """Those of `orphaned` that a folder which is no orphan, or is one of `kept`, was made from, with which.

    Where a kept orphan does not say what it was made from, every folder of that kind is held to be it.
    """
    orphans, found = set(orphaned), dict[Path, str]()
    there = [path for kind in ("runs", "tokens") for path in (RESULTS / kind).glob("*") if path.is_dir()]
    waiting = [*kept, *(path for path in there if path not in orphans)]
    left = orphans - set(waiting)
    while waiting:
        path = waiting.pop()
        for kind, name in _sources(path):
            if name is None and path not in orphans:
                continue  # a config names it, and so what it is made from
            said = "was made from it" if name else f"does not say which of the {kind} it was made from"
            for source in [each for each in left if each.parent.name == kind and name in (None, each.name)]:
                found[source] = f"{path} is kept and {said}"
                left.discard(source)
                waiting.append(source)
    return found


def _sources(path: Path) -> list[tuple[str, str | None]]:
    """(kind, name) of what a folder was made from; the name is None where the folder should say it and does not."""
    if path.parent.name == "runs":
        spec, _ = read_record(path / "spec.json")
        tokens = (spec or {}).get("tokens")
        side = [("sidetexts", spec["side_text"])] if spec and "side_text" in spec else []
        unknown: list[tuple[str, str | None]] = [("sidetexts", None)] if spec is None else []
        return [("tokens", tokens.get("id") if isinstance(tokens, dict) else None), *side, *unknown]
    if path.parent.name == "tokens":
        record, _ = read_record(path / "record.json")
        made = (record or {}).get("spec")
        return [("tokenizers", made.get("tokenizer") if isinstance(made, dict) else None)]
    return []
