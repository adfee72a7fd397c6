"""The words of the report: families, order of variants and layouts, labels of tasks and columns.

Families are those of arXiv:2510.11602, section 3; a variant that is in none of them is a user's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.layouts import LAYOUTS


@dataclass(frozen=True)
class Family:
    """One of the paper's properties of attention and the variants that relax it."""

    key: str
    label: str
    change: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One measured quantity as a table column or a figure panel.

    `scale` multiplies a stored value (accuracies are fractions) into the printed unit.
    """

    task: str
    metric: str
    label: str
    quantity: str
    scale: float = 1.0
    context_length: int | None = None

    @property
    def key(self) -> str:
        """A name for the column that is unique within a table, such as `wikitext.word_perplexity.512`."""
        tail = "" if self.context_length is None else f".{self.context_length}"
        return f"{self.task}.{self.metric}{tail}"

    @property
    def is_accuracy(self) -> bool:
        return self.metric == "acc"


FAMILIES: tuple[Family, ...] = (
    Family("standard", "Standard attention", "the reference", ("standard",)),
    Family("mixing", "Token mixing", "no token sees another in the replaced layers", ("mlp",)),
    Family(
        "form",
        "Mathematical form",
        "another function than the softmax of a dot product",
        ("approximate", "nonapproximate"),
    ),
    Family(
        "sequence",
        "Sequence dependency",
        "the same attention map for every input",
        ("rndembqk", "fixedseqqk"),
    ),
    Family("current", "Current QK", "Q and K from the token embeddings, not from this layer", ("staticembqk",)),
)
OWN = Family("own", "Own variants", "defined in this project's mixers, not in the paper", ())

VARIANTS: tuple[str, ...] = tuple(variant for family in FAMILIES for variant in family.variants)
BASELINES: dict[str, str] = {"random_guess": "random guess", "majority": "majority class"}

NLU_TASKS: tuple[str, ...] = MULTIPLE_CHOICE
TASK_LABELS: dict[str, str] = {
    "arc_easy": "ARC-E", "boolq": "BoolQ", "copa": "COPA", "piqa": "PIQA", "sciq": "SciQ", "rte": "RTE",
    "hellaswag": "HellaSwag", "nlu_avg": "NLU average", "wikitext": "WikiText",
    "lambada_openai": "LAMBADA", "heldout": "Held-out",
}  # fmt: skip

COSTS = "costs"
"""What stands for the task in a column of costs."""

AVERAGE = Column("nlu_avg", "acc", "Average", "accuracy, %", 100.0)
WIKITEXT = Column("wikitext", "word_perplexity", "WikiText", "word perplexity")
HELDOUT = Column("heldout", "word_perplexity", "Held-out", "word perplexity")
COLUMNS: tuple[Column, ...] = (
    *(Column(task, "acc", TASK_LABELS[task], "accuracy, %", 100.0) for task in NLU_TASKS),
    AVERAGE,
    WIKITEXT,
    Column("lambada_openai", "perplexity", "LAMBADA", "perplexity"),
    Column("lambada_openai", "acc", "LAMBADA", "accuracy, %", 100.0),
    HELDOUT,
    Column("heldout", "bits_per_byte", "Held-out", "bits per byte"),
)


def accuracy_column(task: str) -> Column:
    """The accuracy column of a task, known or not."""
    return Column(task, "acc", TASK_LABELS.get(task, task), "accuracy, %", 100.0)


def family_of(variant: str) -> Family:
    """The family a variant belongs to; `OWN` for one that the paper does not have."""
    return next((family for family in FAMILIES if variant in family.variants), OWN)


def in_order(variants: Iterable[str]) -> list[str]:
    """Variants without repeats, the paper's first and in its order, a user's own after them by name."""
    present = set(variants)
    return [v for v in VARIANTS if v in present] + sorted(present - set(VARIANTS))


def layouts_in_order(layouts: Iterable[str]) -> list[str]:
    """Layouts without repeats in the order of the specification, unknown ones after them by name."""
    present = set(layouts)
    return [v for v in LAYOUTS if v in present] + sorted(present - set(LAYOUTS))


def layout_label(layout: str) -> str:
    """How a layout is printed: the paper calls `even` its hybrid."""
    return "hybrid (even)" if layout == "even" else layout


def condition_label(layout: str, mode: str) -> str:
    """How a layout evaluated in a mode is printed, such as `hybrid, skip mixer`."""
    if mode == "full":
        return layout_label(layout)
    return f"{'hybrid' if layout == 'even' else layout}, {mode.replace('_', ' ')}"


def run_label(variant: str, layout: str) -> str:
    """A model of the grid in words, such as `mlp hybrid (even)`; the standard model has no layout."""
    return variant if variant == "standard" else f"{variant} {layout_label(layout)}"


def count_label(number: float) -> str:
    """A count for people: 412_000 is `0.41M`, 15e9 is `15B`."""
    for limit, unit in ((1e9, "B"), (1e5, "M"), (1e3, "k")):
        if number >= limit:
            size = 1e6 if unit == "M" else limit
            return f"{number / size:.2g}{unit}" if number / size < 10 else f"{number / size:,.0f}{unit}"
    return f"{number:.0f}"
