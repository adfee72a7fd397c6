"""The claims, evaluated on a grid: which hold, which fail, which cannot be told, and what would tell them.

Two questions that are never mixed. *Of these checkpoints*: would the trained models compare so on other documents or items?
Bounds are over documents or items. *Of the variant*: would models trained again compare so on this text and these items?
Bounds are over seeds. With one seed nothing is told of a variant, unless the difference is further from where the
verdict would turn than `FAR` times the largest deviation between seeds that the grid shows of any model with `ENOUGH` of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, isfinite, sqrt

import numpy as np
from scipy import stats

from deconattn.report.claims import UNTOLD, Claim, Pair, together
from deconattn.report.names import Column
from deconattn.report.results import Results
from deconattn.report.scored import ENOUGH, Scored
from deconattn.report.statistics import FEWEST_DOCUMENTS, Difference

ERROR = 0.05
"""Most that a family's chance of one false verdict may be: each of its m bounds errs with `ERROR` / m."""
FAR = 5
MOST_SEEDS, MOST_TIMES = 100, 100
"""Seeds, and times the documents or items, beyond which no number is worth naming."""


@dataclass(frozen=True)
class Compared:
    """One comparison of a claim: left − right over documents or items, and over seeds; None where there is nothing.

    number of seeds: `seeds.number`. needed: what would tell what is not told. absent: why there is nothing to compare.
    settings: how a side was trained otherwise than its model.
    """

    pair: Pair
    of_checkpoints: str = UNTOLD
    of_variant: str = UNTOLD
    scored: Difference | None = None
    seeds: Difference | None = None
    needed: tuple[str, ...] = ()
    absent: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A claim on one model. comparisons: how many the family has, so that `level` is that of each two-sided interval."""

    model: str
    claim: Claim
    compared: tuple[Compared, ...]
    comparisons: int
    text: Column | None

    @property
    def level(self) -> float:
        return 1 - 2 * ERROR / max(1, self.comparisons)

    @property
    def of_checkpoints(self) -> str:
        return together([each.of_checkpoints for each in self.compared])

    @property
    def of_variant(self) -> str:
        return together([each.of_variant for each in self.compared])

    @property
    def rank(self) -> int:
        """What can be told comes first: of the variant, of these checkpoints, not, not in the grid."""
        told = [
            self.of_variant != UNTOLD,
            self.of_checkpoints != UNTOLD,
            not any(each.absent for each in self.compared),
        ]
        return told.index(True) if any(told) else len(told)


def findings(results: Results, model: str, claims: Iterable[Claim]) -> list[Finding]:
    """Each claim that is about such a model, what can be told first."""
    scored = Scored(results, model)
    normed = results.runs.loc[results.runs["model"] == model, "qk_norm"].eq(True).any()
    own = [claim for claim in claims if claim.models in ("any", "qk_norm" if normed else "no qk_norm")]
    own = [claim for claim in own if (claim.metric == "recall") == bool(scored.recall)]
    sizes: dict[str, int] = {}
    for claim in own:
        sizes[claim.family] = sizes.get(claim.family, 0) + sum(not scored.absent(pair) for pair in claim.pairs)
    found = []
    for claim in own:
        finding = Finding(model, claim, (), sizes[claim.family], scored.text)
        found.append(replace(finding, compared=tuple(compare(scored, finding, pair) for pair in claim.pairs)))
    return sorted(found, key=lambda finding: finding.rank)


def compare(scored: Scored, finding: Finding, pair: Pair) -> Compared:
    """One comparison of a claim, with its verdicts and what they lack."""
    claim, level = finding.claim, finding.level
    if absent := scored.absent(pair):
        return Compared(pair, absent=absent)
    settings = tuple(dict.fromkeys(note for side in pair for note in scored.settings(side)))
    outcome = scored.compare(claim.metric, pair, level)
    if isinstance(outcome, str):
        return Compared(pair, absent=outcome, settings=settings)
    items, seeds = outcome
    low, high = seeds.low, seeds.high
    deviation = scored.deviation(claim.metric, {side.mode for side in pair}) if seeds.number < 2 else None
    if deviation is not None and isfinite(seeds.value):
        low, high = seeds.value - FAR * deviation, seeds.value + FAR * deviation
    of_checkpoints, of_variant = claim.verdict(items.low, items.high), claim.verdict(low, high)
    needed = []
    if of_variant == UNTOLD:
        needed.append(_seeds_needed(seeds, claim.distance(seeds.value), deviation, level))
    if of_checkpoints == UNTOLD:
        needed.append(_items_needed(items, claim.distance(items.value)))
    return Compared(pair, of_checkpoints, of_variant, items, seeds, tuple(filter(None, needed)), "", settings)


# ---- what would tell --------------------------------------------------------------------------------------------------------
def _seeds_needed(found: Difference, distance: float, deviation: float | None, level: float) -> str:
    """Seeds whose interval would be narrower than the distance, if the difference stayed as it is."""
    tail, count = (1 + level) / 2, int(found.number)
    if not isfinite(found.value):
        return f"{ENOUGH} seeds or more that train to the end"
    if count >= 2 and found.high is not None:
        spread = (found.high - found.value) * sqrt(count) / stats.t.ppf(tail, count - 1)
    elif deviation is not None:
        spread = sqrt(2) * deviation  # of a difference of two models
    else:
        return f"{ENOUGH} seeds or more"
    numbers = np.arange(2, MOST_SEEDS + 1)
    enough = numbers[stats.t.ppf(tail, numbers - 1) * spread / np.sqrt(numbers) < distance]
    return f"some {max(enough[0], ENOUGH)} seeds" if len(enough) else f"more than {MOST_SEEDS} seeds"


def _items_needed(found: Difference, distance: float) -> str:
    """Documents or items whose interval would be narrower than the distance, if the difference stayed as it is."""
    if found.low is None or found.high is None:
        return f"{FEWEST_DOCUMENTS} documents or more (these count as {found.number:.0f})"
    if not isfinite(found.value):
        return ""
    times = ((found.high - found.low) / 2 / distance) ** 2 if distance else np.inf
    number = f"{ceil(times * found.number):,}" if times <= MOST_TIMES else f"more than {MOST_TIMES} times as many"
    return f"{'some ' if times <= MOST_TIMES else ''}{number} {found.over} (here {found.number:,.0f})"
