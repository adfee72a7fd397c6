"""One result: the stage that makes it, its spec, and its folder, whose name ends in the hash of the spec.

A run's is `<model>-<variant>-<layout>-s<seed>-<hash>` (all but the hash is `grid.Run.name`). A spec holds the settings that can
change the result, the digest of the code that its stage can reach, and the folders that it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deconattn.experiment.code import code_of
from deconattn.experiment.record import made_from, spec_hash


@dataclass(frozen=True)
class Artefact:
    """One folder: the stage that makes it, its spec, the model whose resources its job uses, and its number of parts."""

    stage: str
    folder: Path
    spec: dict[str, Any] = field(hash=False, compare=False)
    model: str | None = None
    parts: int = 0

    @property
    def needs(self) -> list[str]:
        """Folders that it is made from."""
        return made_from(self.spec)


def make_artefact(
    stage: str, stem: Path, facts: dict[str, Any], model: str | None = None, parts: int = 0, **sources: Any
) -> Artefact:
    """The artefact of a stage from its settings (`facts`), in a folder `<stem>-<hash>`.

    sources: what it is made from, by the name under which its job finds it: an artefact, several, or None for nothing.
    """
    spec: dict[str, Any] = {"stage": stage, **facts}
    if found := {name: folders_of(source) for name, source in sources.items() if source is not None}:
        spec["made_from"] = found
    if stage != "mirror":
        spec["code"] = code_of(spec)
    digest = spec_hash(spec)
    folder = stem.with_name(f"{stem.name}-{digest}")
    if stage == "pretrain":
        spec |= {"run": folder.name, "hash": digest}
    return Artefact(stage, folder, spec, model, parts)


def folders_of(source: Any) -> Any:
    """The folder of an artefact, or of each in a list or by name."""
    if isinstance(source, Artefact):
        return str(source.folder)
    if isinstance(source, dict):
        return {name: folders_of(one) for name, one in source.items()}
    return [folders_of(one) for one in source]
