"""Claims as data (claims.csv): what each compares, by how much, and what bounds say of it.

They are the paper's, and the predictions of docs/recall.md. Margins are fixed here, before a grid is evaluated; they were
chosen by the paper's values. A claim is of one of four
types, about how much worse its left side is than its right one: `difference` (worse), `threshold` (worse by more than the
margin), `equivalence` (neither better nor worse by the margin), `order` (each of a list is worse than the one before it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pandas as pd

from deconattn.report.names import AVERAGE, CHANCE, WIKITEXT, condition_label
from deconattn.report.published import load_published, published_cells

HOLDS, FAILS, UNTOLD = "holds", "fails", "cannot be told"
FAMILIES = {
    "everywhere": "Relaxed in every layer",
    "hybrids": "Relaxed in every other layer",
    "skips": "Relaxed layers left out",
    "accuracy": "Accuracy",
    "recall": "Associative recall",
}


@dataclass(frozen=True)
class Condition:
    """One side of a comparison: a variant in a layout and mode, or a baseline (`random_guess`, `random_pair`)."""

    variant: str
    layout: str = "uniform"
    mode: str = "full"

    @property
    def label(self) -> str:
        if self.variant in CHANCE or self.variant == "standard":
            return CHANCE.get(self.variant, self.variant)
        return f"{self.variant} {condition_label(self.layout, self.mode)}"


Pair = tuple[Condition, Condition]


@dataclass(frozen=True)
class Claim:
    """A row of claims.csv.

    metric: `log_perplexity` (nats a word), `accuracy` (the mean over the NLU tasks, a fraction) or `recall` (the mean over
    numbers of pairs, a fraction), which alone is evaluated on a grid of recall. models: `any`, or those
    with (`qk_norm`) or without (`no qk_norm`) head norms. published: the table that its published values are from, if any.
    """

    claim: str
    family: str
    type: str
    sentence: str
    left: str
    right: str
    metric: str
    margin: float
    models: str
    published: str
    where: str

    @property
    def pairs(self) -> list[Pair]:
        """What is compared: (left, right) each."""
        left, right = ([Condition(*each.split(":")) for each in side.split()] for side in (self.left, self.right))
        if self.type == "order":
            return [(worse, better) for better, worse in pairwise(left)]
        return [*zip(left, right, strict=True)]

    def verdict(self, low: float | None, high: float | None) -> str:
        """What bounds of left − right say; that zero lies between them says nothing against a claim."""
        if low is None or high is None:
            return UNTOLD
        # The higher accuracy is the better one.
        low, high = (low, high) if self.metric == "log_perplexity" else (-high, -low)
        if self.type == "equivalence":
            if -self.margin < low and high < self.margin:
                return HOLDS
            return FAILS if low > self.margin or high < -self.margin else UNTOLD
        return HOLDS if low > self.margin else FAILS if high < self.margin else UNTOLD

    def distance(self, value: float) -> float:
        """How far left − right is from the nearest value at which the verdict would turn."""
        value = value if self.metric == "log_perplexity" else -value
        return abs((abs(value) if self.type == "equivalence" else value) - self.margin)

    def printed(self, pair: Pair) -> float | None:
        """left − right of the paper's own values, which have no error that could be told by; None if it lacks one."""
        if not self.published:
            return None
        column, rows = WIKITEXT if self.metric == "log_perplexity" else AVERAGE, load_published(self.published)
        cells = [published_cells(rows, c.variant, c.layout, c.mode, [column]).get(column.key) for c in pair]
        left, right = (None if cell is None else cell.value for cell in cells)
        if left is None or right is None:
            return None
        return left - right if column is AVERAGE else math.log(left / right)


def together(verdicts: list[str]) -> str:
    """The verdict on a claim of several comparisons: it holds if all do, and fails if one does."""
    return FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNTOLD


@cache
def load_claims() -> tuple[Claim, ...]:
    """The rows of claims.csv, in its order."""
    rows = pd.read_csv(Path(__file__).with_name("claims.csv"), keep_default_na=False).to_dict("records")
    return tuple(Claim(**{str(name): value for name, value in row.items()}) for row in rows)
