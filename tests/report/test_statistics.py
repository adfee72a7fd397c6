"""Intervals: their coverage on synthetic data whose truth is known, and agreement with another way to the same number."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
import pytest
from scipy import stats

from deconattn.report import statistics
from deconattn.report.statistics import Difference
from tests.conftest import slow


def coverage(truth: float, draw: Callable[[int], Difference], data_sets: int = 2_000) -> float:
    """Share of data sets whose interval holds the truth."""
    found = [draw(number) for number in range(data_sets)]
    known = [each for each in found if each.low is not None and each.high is not None]
    return float(np.mean([each.low <= truth <= each.high for each in known]))


def answers(generator: np.random.Generator, items: int, gained: float, lost: float) -> tuple[np.ndarray, np.ndarray]:
    """(standard, variant) on items of which these shares are gained and lost by the variant."""
    kind = generator.random(items)
    both = kind > (1 + gained + lost) / 2
    return both | (kind < lost), both | ((kind >= lost) & (kind < lost + gained))


def documents(generator: np.random.Generator, count: int, spread: float) -> tuple[np.ndarray, ...]:
    """(standard, variant, words) of documents of log-normal length; the variant is 0.01 nats a word worse."""
    words = 300 * np.exp(generator.normal(0, spread, count))
    standard = 3 * words + generator.normal(0, 1, count) * np.sqrt(words)
    return standard, standard + words * (0.01 + 0.02 * generator.standard_normal(count)), words


@pytest.mark.parametrize("items", [200, *slow(1_000)])
@pytest.mark.parametrize(("gained", "lost"), [(0.1, 0.1), (0.15, 0.05), (0.3, 0.1)])
def test_items_are_covered(items: int, gained: float, lost: float) -> None:
    generator = np.random.default_rng(0)
    covered = coverage(gained - lost, lambda _: statistics.accuracy(*answers(generator, items, gained, lost)))
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_are_covered(seeds: int) -> None:
    generator = np.random.default_rng(0)

    def draw(_: int) -> Difference:
        standard = generator.normal(0, 0.01, seeds)
        return statistics.over_seeds(standard, standard + generator.normal(0.02, 0.01, seeds))

    assert 0.935 <= coverage(0.02, draw, 4_000) <= 0.965


@pytest.mark.parametrize(
    ("count", "least", "data_sets"), [(42, 0.92, 400), *slow((42, 0.92, 2_000), (387, 0.935, 2_000))]
)
def test_documents_of_unequal_length_are_covered(count: int, least: float, data_sets: int) -> None:
    """42 documents whose lengths spread so count as some 33, 387 as 300."""
    generator = np.random.default_rng(0)

    def draw(number: int) -> Difference:
        return statistics.log_perplexity(*documents(generator, count, 0.5), seed=number)

    assert coverage(0.01, draw, data_sets) >= least


def test_the_mean_over_tasks_is_covered() -> None:
    generator = np.random.default_rng(0)
    tasks = ((100, 0.1, 0.1), (277, 0.05, 0.04), (500, 0.2, 0.1))

    def draw(number: int) -> Difference:
        return statistics.mean_accuracy([answers(generator, *task) for task in tasks], seed=number)

    assert 0.93 <= coverage(0.11 / 3, draw, 400) <= 0.97


def test_too_few_are_said_to_be() -> None:
    generator = np.random.default_rng(0)
    few = statistics.log_perplexity(*documents(generator, 30, 1.0))
    assert few.low is None and few.number < 30 and few.value == pytest.approx(0.01, abs=0.02)
    one = statistics.over_seeds([3.0], [3.1])
    assert (one.low, one.number) == (None, 1) and one.value == pytest.approx(0.1)
    # One document that outweighs all others counts as one.
    standard, variant, words = documents(generator, 200, 0.1)
    words[0] *= 1e6
    assert statistics.log_perplexity(standard, variant, words).number == pytest.approx(1, abs=1e-3)


def test_the_exact_test_is_the_sum_over_the_binomial() -> None:
    standard, variant = answers(np.random.default_rng(3), 200, 0.1, 0.04)
    gained, lost = int(sum(variant & ~standard)), int(sum(standard & ~variant))
    count, least = gained + lost, min(gained, lost)
    by_hand = min(1.0, 2 * sum(comb(count, k) for k in range(least + 1)) / 2**count)
    assert statistics.accuracy(standard, variant).p == pytest.approx(by_hand, rel=1e-12)
    assert statistics.accuracy(standard, standard).p == 1.0


def test_seeds_are_a_paired_t_test() -> None:
    standard, variant = [3.1, 3.3, 3.2, 3.25], [3.15, 3.32, 3.29, 3.27]
    found = statistics.over_seeds(standard, variant, 0.9)
    peer = stats.ttest_rel(variant, standard).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), rel=1e-12)


def test_intervals_agree_with_another_bootstrap() -> None:
    """scipy's BCa bootstrap, which corrects for skewness in another way."""
    generator = np.random.default_rng(5)
    standard, variant, words = documents(generator, 400, 0.5)
    found = statistics.log_perplexity(standard, variant, words)
    peer = stats.bootstrap(
        (variant - standard, words), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=2_000, rng=generator,
    ).confidence_interval  # fmt: skip
    assert found.low is not None and found.high is not None
    width = found.high - found.low
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=0.1 * width)
    a, b = answers(generator, 1_000, 0.15, 0.05)
    items, mean = statistics.accuracy(a, b), statistics.mean_accuracy([(a, b)])
    assert (mean.low, mean.high) == pytest.approx((items.low, items.high), abs=0.004)
