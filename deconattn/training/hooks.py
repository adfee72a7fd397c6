"""What a training tells its surroundings and asks of them, while nothing of them can change a result.

The loop calls these methods; as they stand here they do nothing, and the training is alone with its spec. A job
(`deconattn.training.job`) fills them in with a lock, a deadline, progress and measurements. Those modules are not
imported from here: they are no part of a run's code, and editing them leaves every run its name.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from deconattn.model import LanguageModel


class Stopped(Exception):
    """The run was asked to stop before its end and has saved what it had."""


class Hooks:
    """A training without surroundings."""

    def prepared(self, model: LanguageModel) -> None:
        """The model is in its place, as it was when it was last saved."""

    def started(self, done: int) -> None:
        """The training begins, or goes on, after `done` updates."""

    def stepped(self, done: int, loss: float, tokens_per_second: float) -> None:
        """`done` updates are made."""

    def said(self, text: str) -> None:
        """A line that is worth reading by itself."""

    def stop_reason(self) -> str | None:
        """Why to save and stop now, or None. Every process asks at the same places and gets the same answer."""
        return None

    def nothing_to_save(self) -> AbstractContextManager[None]:
        """A stretch of unknown length, such as compiling, in which all that is done is saved: it may be left at once."""
        return nullcontext()

    def before_write(self) -> None:
        """Process 0 is about to write into the run's folder; raises if another owns it by now."""

    def saved(self, seconds: float) -> None:
        """A checkpoint was written in so many seconds."""

    def measured(self, sequences: int, length: int, seconds: float) -> dict[str, Any]:
        """More columns of train.parquet for an update of `sequences` × `length` tokens."""
        return {}

    def micro_batch(self, model: LanguageModel, share: int, length: int) -> int:
        """Sequences that this process holds at once, of its `share` of an update."""
        return share

    def largest_scores(self, model: LanguageModel, rows: Tensor) -> str:
        """Of a training that diverged: where the scores before the softmax are largest, as words that follow."""
        return ""
