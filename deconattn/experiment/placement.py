"""Where something lies whose name carries the digest of its code, when several digests stand for the same code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from deconattn.experiment.records import read_record


class Placement:
    """One folder.

    Args:
        digest: of the code as it stands.
        path_of: digest → folder.
        marks: files that say that the folder is made, or else begun; the surest first.
        variant: of the run that it is; "" for data.
        same: all digests that stand for `digest`, the one that names new results first.
    """

    def __init__(
        self, digest: str, path_of: Callable[[str], Path], marks: tuple[str, ...], variant: str, same: list[str]
    ) -> None:
        self.digest, self.path_of, self.marks, self.variant, self.same = digest, path_of, marks, variant, same

    @cached_property
    def _chosen(self) -> tuple[str, Path]:
        places = [(each, self.path_of(each)) for each in self.same]
        # What this very code has made comes before what was declared to be the same.
        own = [place for place in places if place[0] == self.digest]
        for mark in self.marks if len(places) > 1 else ():
            for each, path in (*own, *places):
                if (path / mark).is_file():
                    return each, path
        return places[0]

    @property
    def code(self) -> str:
        """The digest that names it."""
        return self._chosen[0]

    @property
    def path(self) -> Path:
        """The folder."""
        return self._chosen[1]

    @property
    def stage(self) -> str:
        """`training` for a run, `data` for what runs are made from."""
        return "training" if self.variant else "data"

    @property
    def exists(self) -> bool:
        """Whether it is made."""
        return (self.path / self.marks[0]).is_file()

    def siblings(self) -> list[Path]:
        """Folders beside it that are the same but for the code that they are named by; made or begun."""
        stem = self.path.name.rpartition("-")[0]
        found = [path for path in self.path.parent.glob(f"{stem}-*") if path.name.rpartition("-")[0] == stem]
        return sorted(
            path
            for path in found
            if path != self.path
            and any((path / mark).is_file() for mark in self.marks)
            and (code := self.code_of(path))
            and self.path_of(code) == path
        )

    def age_of(self, sibling: Path) -> tuple[bool, float]:
        """Whether a sibling is made, and when it was: the largest is the newest that is made, or else begun."""
        mark = next(mark for mark in self.marks if (sibling / mark).is_file())
        ended = (read_record(sibling / mark)[0] or {}).get("ended")
        return mark == self.marks[0], ended if isinstance(ended, float) else (sibling / mark).stat().st_mtime

    def code_of(self, sibling: Path) -> str | None:
        """The digest that a sibling is named by."""
        record, _ = read_record(sibling / ("spec.json" if self.variant else "record.json"))
        code = (record or {}).get("code")
        return code if isinstance(code, str) else None
