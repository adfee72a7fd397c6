"""The words, colours and markers of the report: families, order of variants, labels of tasks, layouts and columns.

Families are those of arXiv:2510.11602, section 3; a variant that is in none of them is a user's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deconattn.evaluation.names import MULTIPLE_CHOICE as NLU_TASKS

PAPER = "arXiv:2510.11602v1"


@dataclass(frozen=True)
class Family:
    """One of the paper's properties of attention and the variants that relax it."""

    key: str
    label: str
    change: str
    variants: tuple[str, ...]

    @property
    def colour(self) -> str:
        return colour(self.variants[0]) if self.variants else OWN_COLOUR


FAMILIES = (
    Family("standard", "Standard attention", "the reference", ("standard",)),
    Family("mixing", "Token mixing", "no token sees another in the replaced layers", ("mlp",)),
    Family(
        "form",
        "Mathematical form",
        "another function than the softmax of a dot product",
        ("approximate", "nonapproximate"),
    ),
    Family("sequence", "Sequence dependency", "the same attention map for every input", ("rndembqk", "fixedseqqk")),
    Family("current", "Current QK", "Q and K from the token embeddings, not from this layer", ("staticembqk",)),
)
OWN = Family("own", "Own variants", "defined in this project's mixers, not in the paper", ())
VARIANTS = tuple(variant for family in FAMILIES for variant in family.variants)
BASELINES = {"random_guess": "random guess", "majority": "majority class"}
CHANCE = {"random_guess": "random guess", "random_pair": "random pair"}
"""Baselines with which claims compare: of an answer among all, and of recall among a sequence's pairs."""

# One hue a family; variants of a family differ in lightness and in marker, so that either alone tells them apart in grey
# print. Seen with a colour-vision deficiency (Machado et al., 2009) any two variants stay at least 15 apart in CIELAB,
# and every colour has a contrast of 3 : 1 or more against white.
COLOURS = {
    "standard": "#1a1a1a", "mlp": "#c4460a", "approximate": "#143f9e", "nonapproximate": "#5f8ff0", "rndembqk": "#1a6637",
    "fixedseqqk": "#44a052", "staticembqk": "#b8509a",
}  # fmt: skip
MARKERS = {
    "standard": "s", "mlp": "X", "approximate": "o", "nonapproximate": "D", "rndembqk": "^", "fixedseqqk": "v",
    "staticembqk": "P",
}  # fmt: skip
OWN_COLOUR = "#707070"
OWN_MARKERS = ("h", "p", "*", "<", ">")


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

    @property
    def is_perplexity(self) -> bool:
        """Whether it is an exponential of a loss, and so belongs on a logarithmic axis."""
        return self.metric.endswith("perplexity")


TASK_LABELS = {
    "arc_easy": "ARC-E", "boolq": "BoolQ", "copa": "COPA", "piqa": "PIQA", "sciq": "SciQ", "rte": "RTE",
    "hellaswag": "HellaSwag", "nlu_avg": "Average", "wikitext": "WikiText", "lambada_openai": "LAMBADA",
    "heldout": "Held-out",
}  # fmt: skip
COSTS = "costs"
"""What stands for the task in a column of costs."""


def column_of(task: str, metric: str) -> Column:
    """The column of any task and metric; accuracies, of whatever kind, are printed in per cent."""
    label = TASK_LABELS.get(task, task)
    if metric.split("_")[0] != "acc":
        return Column(task, metric, label, metric.replace("_", " "))
    kind = {"acc": "accuracy", "acc_norm": "accuracy by length"}.get(metric, metric)
    return Column(task, metric, label, f"{kind}, %", 100.0)


def accuracy_column(task: str) -> Column:
    """The accuracy column of a task, known or not."""
    return column_of(task, "acc")


AVERAGE = accuracy_column("nlu_avg")
WIKITEXT = Column("wikitext", "word_perplexity", "WikiText", "word perplexity")
HELDOUT = Column("heldout", "bits_per_byte", "Held-out", "bits per byte")
"""What the held-out text is judged by: a word perplexity of short texts by a small model runs to thousands."""
COLUMNS = (
    *map(accuracy_column, NLU_TASKS),
    AVERAGE,
    WIKITEXT,
    Column("lambada_openai", "perplexity", "LAMBADA", "perplexity"),
    accuracy_column("lambada_openai"),
    HELDOUT,
    Column("heldout", "word_perplexity", "Held-out", "word perplexity"),
)


def family_of(variant: str) -> Family:
    """The family a variant belongs to; `OWN` for one that the paper does not have."""
    return next((family for family in FAMILIES if variant in family.variants), OWN)


def in_order(variants: Iterable[str]) -> list[str]:
    """Variants without repeats, the paper's first and in its order, a user's own after them by name."""
    present = set(variants)
    return [v for v in VARIANTS if v in present] + sorted(present - set(VARIANTS))


def colour(variant: str) -> str:
    """The colour of a variant; all of a user's own share one grey."""
    return COLOURS.get(variant, OWN_COLOUR)


def marker(variant: str) -> str:
    """The marker of a variant; a user's own take one by their name, the same in every figure."""
    return MARKERS.get(variant) or OWN_MARKERS[sum(variant.encode()) % len(OWN_MARKERS)]


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
    for limit, size, unit in ((1e9, 1e9, "B"), (1e5, 1e6, "M"), (1e3, 1e3, "k")):
        if number >= limit:
            return f"{number / size:.2g}{unit}" if number / size < 10 else f"{number / size:,.0f}{unit}"
    return f"{number:.0f}"
