"""Intervals for the difference between a variant and standard attention, by what they say something about.

Items and documents: about *these trained models*, had they been given other items or documents of the same kind. Seeds:
about *models trained so*, had they been trained again. The two are never mixed; `Difference.over` says which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

FEWEST_DOCUMENTS = 30
"""Effective documents below which no interval is given: the bootstrap covers too little there."""
RESAMPLES = 2_000
"""The fewest; enough of them that ten are beyond each bound."""
AT_ONCE = 500_000
"""Documents that are resampled at once, for the sake of memory."""


@dataclass(frozen=True)
class Difference:
    """A difference to standard attention with its interval.

    number: items, effective documents, or seeds. low, high: None where there are too few for an interval. p: of the exact
    McNemar test, for items.
    """

    value: float
    over: Literal["items", "documents", "seeds"]
    number: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def accuracy(standard: np.ndarray, variant: np.ndarray, level: float = 0.95) -> Difference:
    """Difference of two accuracies on the same items (two boolean arrays of n), with the exact McNemar test.

    The interval is Wald's after one more item of each kind of disagreement (Bonett & Price, 2012): those of
    Clopper and Pearson, which belong to the exact test, take the number of disagreements as given.
    """
    items = len(standard)
    gained, lost = int(np.sum(variant & ~standard)), int(np.sum(standard & ~variant))
    more, less = (gained + 1) / (items + 2), (lost + 1) / (items + 2)
    width = stats.norm.ppf((1 + level) / 2) * np.sqrt((more + less - (more - less) ** 2) / (items + 2))
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    centre = more - less
    return Difference(
        (gained - lost) / items, "items", items, max(-1.0, centre - width), min(1.0, centre + width), float(p)
    )


def mean_accuracy(tasks: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95, seed: int = 0) -> Difference:
    """Difference of the mean accuracy over tasks, each (standard, variant) on its items; resampled within tasks.

    An item has a truth value, a mean of several over seeds, or a chance. The bootstrap is studentised. Tasks are not
    resampled: it is about these tasks.
    """
    generator, resamples = np.random.default_rng(seed), _resamples(level)
    values, variances = np.zeros(resamples + 1), np.zeros(resamples + 1)  # the first: as observed
    for standard, variant in tasks:
        kinds, counts = np.unique(np.subtract(variant, standard, dtype=float).round(12), return_counts=True)
        items = counts.sum()
        each = np.vstack([counts, generator.multinomial(items, counts / items, resamples)]) / items
        means = each @ kinds
        values, variances = values + means, variances + (each @ kinds**2 - means**2) / items
    value, errors, count = float(values[0]), np.sqrt(np.maximum(variances, 0)), len(tasks)
    low, high = _studentised(value, float(errors[0]), values[1:], errors[1:], level)
    number = sum(len(standard) for standard, _ in tasks)
    return Difference(value / count, "items", number, low / count, high / count)


def log_perplexity(
    standard: np.ndarray, variant: np.ndarray, units: np.ndarray, level: float = 0.95, seed: int = 0
) -> Difference:
    """Difference of log-perplexity, Σ(variant − standard) / Σ units, over documents.

    Args:
        standard, variant: negative log-likelihood (nats) of each document.
        units: its words or bytes.

    Documents are clusters of unequal size: a studentised bootstrap resamples them whole. They count as
    (Σ units)² / Σ units² documents.
    """
    units = np.asarray(units, float)
    excess = np.asarray(variant, float) - np.asarray(standard, float)
    number = float(units.sum() ** 2 / (units**2).sum())
    value = float(excess.sum() / units.sum())
    if number < FEWEST_DOCUMENTS:
        return Difference(value, "documents", number)
    generator, resamples, rows = np.random.default_rng(seed), _resamples(level), max(1, AT_ONCE // len(units))
    parts = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(len(units), size=(min(rows, resamples - start), len(units)))
        parts.append(_ratio(excess[drawn], units[drawn]))
    values, errors = map(np.concatenate, zip(*parts, strict=True))
    _, error = _ratio(excess[None], units[None])
    low, high = _studentised(value, float(error[0]), values, errors, level)
    # Without this, far bounds over some 50 documents err a fifth more often than they should (trials in the tests).
    wider = 1 + 2 / number
    return Difference(value, "documents", number, value + wider * (low - value), value + wider * (high - value))


def _resamples(level: float) -> int:
    return max(RESAMPLES, round(20 / (1 - level)))


def _ratio(excess: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ excess / Σ units of each row (…, documents), and its standard error (Cochran, 1977, eq. 6.13)."""
    count, total = units.shape[-1], units.sum(-1)
    value = excess.sum(-1) / total
    squares = ((excess - value[..., None] * units) ** 2).sum(-1)
    return value, np.sqrt(squares * count / (count - 1)) / total


def _studentised(
    value: float, error: float, values: np.ndarray, errors: np.ndarray, level: float
) -> tuple[float, float]:
    """The bootstrap-t interval (Efron & Tibshirani, 1993, section 12.5)."""
    there = errors > 0
    if error == 0 or not there.any():
        return value, value
    upper, lower = np.quantile((values - value)[there] / errors[there], [(1 + level) / 2, (1 - level) / 2])
    return float(value - upper * error), float(value - lower * error)


def over_seeds(standard: Sequence[float], variant: Sequence[float], level: float = 0.95) -> Difference:
    """Mean difference over training seeds, paired by seed, with Student's t; one seed gives no interval.

    Of log-perplexities or accuracies: perplexities themselves are too skewed to be averaged.
    """
    differences = np.subtract(variant, standard)
    count, value = len(differences), float(np.mean(differences))
    if count < 2:
        return Difference(value, "seeds", count)
    width = float(stats.t.ppf((1 + level) / 2, count - 1) * np.std(differences, ddof=1) / np.sqrt(count))
    return Difference(value, "seeds", count, value - width, value + width)
