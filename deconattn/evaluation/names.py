"""The names of tasks, their metrics and the modes of an evaluation; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

from deconattn.errors import UserError
from deconattn.nearest import not_one_of

MULTIPLE_CHOICE = ("arc_easy", "boolq", "copa", "piqa", "sciq", "rte", "hellaswag")
DOCUMENTS = ("wikitext", "heldout")
METRICS: dict[str, tuple[str, ...]] = {
    **{task: ("acc",) for task in MULTIPLE_CHOICE},
    "lambada_openai": ("perplexity", "acc"),
    **{task: ("word_perplexity", "byte_perplexity", "bits_per_byte") for task in DOCUMENTS},
}
MODES = ("full", "skip", "skip_mixer")


def check_names(tasks: Iterable[str], modes: Iterable[str] = ()) -> None:
    """Raise a `UserError`, with the nearest valid name, for a task or mode that does not exist."""
    for kind, names, allowed in (("task", tasks, tuple(METRICS)), ("evaluation mode", modes, MODES)):
        for name in names:
            if name not in allowed:
                raise UserError(not_one_of(name, kind, allowed))
