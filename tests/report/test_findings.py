"""What is said of the paper's claims, on grids whose truth is set, and how it is printed."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.report import schema, statistics
from deconattn.report.claims import FAILS, HOLDS, UNTOLD, Claim, Condition, Pair, load_claims
from deconattn.report.draw import draw
from deconattn.report.findings import Finding, compare
from deconattn.report.scored import Outcome, Scored
from deconattn.report.statistics import FEWEST_DOCUMENTS, log_perplexity, mean_accuracy, over_seeds
from tests.conftest import slow
from tests.make_results import make_runs, report
from tests.report.grid import NOISE, Grid
from tests.report.test_statistics import answers

CLAIMS = {claim.claim: claim for claim in load_claims()}
HYBRIDS = [claim for claim in load_claims() if claim.family == "hybrids"]


def alone(kind: str, margin: float = 0.0, metric: str = "log_perplexity") -> Claim:
    """A family of one claim, about mlp."""
    return replace(CLAIMS["mixing"], type=kind, margin=margin, metric=metric)


def test_each_type_of_claim_comes_out_right() -> None:
    variants = ("mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
    loss: dict[str, float | None] = dict.fromkeys((f"{variant}:even" for variant in variants), 0.0)
    loss |= {"mlp:uniform": 3.0, "approximate:uniform": 0.2, "fixedseqqk:uniform": 0.1, "rndembqk:uniform": -0.2}
    loss |= {"staticembqk:uniform": 0.0, "nonapproximate:uniform": None, "mlp:even": 0.05, "nonapproximate:even": 0.2}
    loss |= {f"{variant}:even:skip": 5.0 for variant in variants}
    right = {"standard": 0.5, "mlp:uniform": 0.25, "rndembqk:uniform": 0.3}
    right |= {"nonapproximate:even": 0.5, "rndembqk:even": 0.4}
    expected = {
        "mixing": HOLDS,  # a threshold
        "key-scores": HOLDS,  # it diverged
        "form": HOLDS,  # a difference
        "random-map": FAILS,  # it is better
        "text-map": HOLDS,
        "static-qk": UNTOLD,
        "order": FAILS,  # approximate is behind fixedseqqk
        "form-hybrid": HOLDS,  # an equivalence
        "key-scores-hybrid": FAILS,
        "mixing-hybrid": UNTOLD,  # it is at the margin
        "skips": HOLDS,
        "near-chance": HOLDS,
        "random-map-accuracy": HOLDS,
        "key-scores-hybrid-accuracy": HOLDS,
        "random-map-hybrid-accuracy": FAILS,
    }
    found = Grid(loss, right, items=5_000).say()
    assert {name: found[name].of_checkpoints for name in expected} == expected
    assert {each.of_variant for each in found.values()} == {UNTOLD}
    seeds = Grid(loss, right, items=5_000, seeds=range(5), between_seeds=0.002).say()
    told = {name: verdict for name, verdict in expected.items() if name not in ("key-scores", "mixing-hybrid")}
    assert {name: seeds[name].of_variant for name in told} == told
    assert seeds["key-scores"].of_variant == UNTOLD, "how often a training diverges is not known from five"
    # A claim on head norms is asked of models that have them.
    assert "key-scores-normed" not in found
    normed = Grid({"nonapproximate:uniform": 0.9}, qk_norm=True).say()
    assert normed["key-scores-normed"].of_checkpoints == HOLDS and "key-scores" not in normed


@pytest.mark.parametrize(
    ("kind", "bounds", "expected"),
    [
        ("equivalence", (-0.04, 0.04), HOLDS), ("equivalence", (-0.06, 0.04), UNTOLD), ("equivalence", (0.04, 0.06), UNTOLD),
        ("equivalence", (0.06, 0.08), FAILS), ("equivalence", (-0.08, -0.06), FAILS), ("threshold", (0.06, 0.08), HOLDS),
        ("threshold", (0.04, 0.06), UNTOLD), ("threshold", (-0.06, 0.04), FAILS), ("threshold", (None, None), UNTOLD),
    ],
)  # fmt: skip
def test_bounds_decide(kind: str, bounds: tuple[float | None, float | None], expected: str) -> None:
    """At a margin of 0.05; the higher of two accuracies is the better one."""
    assert alone(kind, 0.05).verdict(*bounds) == expected
    low, high = bounds
    turned = (None, None) if low is None or high is None else (-high, -low)
    assert alone(kind, 0.05, "accuracy").verdict(*turned) == expected


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize(("errors", "expected"), [(1, UNTOLD), (5, HOLDS), (-5, FAILS), (-1, UNTOLD)])
def test_one_standard_error_tells_nothing_and_five_do(seeds: int, errors: int, expected: str) -> None:
    """As observed: over documents with one seed, over seeds with several."""
    grid = Grid({"mlp:uniform": 0.0}, seeds=range(seeds), between_seeds=0.01)
    one, other = ([grid.samples[f"{variant}-uniform-{seed}", "full", "wikitext"] for seed in range(seeds)]
                  for variant in ("mlp", "standard"))  # fmt: skip
    words = one[0]["words"].to_numpy()
    excess = np.array([(a["nll"] - b["nll"]) for a, b in zip(one, other, strict=True)])
    value = excess.sum() / words.sum() / seeds
    if seeds == 1:
        rest = excess[0] - value * words
        error = np.sqrt((rest**2).sum() * len(words) / (len(words) - 1)) / words.sum()
    else:
        error = np.std(excess.sum(1) / words.sum(), ddof=1) / np.sqrt(seeds)
    for rows in one:
        rows["nll"] += words * (errors * error - value)
    (found,) = grid.say(alone("difference")).values()
    assert (found.of_checkpoints if seeds == 1 else found.of_variant) == expected


def test_no_difference_is_equivalent_within_three_standard_errors() -> None:
    """In 80 % and more, for a family of one: of items of which a tenth is gained and a tenth is lost."""
    generator = np.random.default_rng(0)
    claim = alone("equivalence", 3 * np.sqrt(0.2 / 1_000), "accuracy")
    level = Finding("m", claim, (), 1, None).level
    bounds = [mean_accuracy([answers(generator, 1_000, 0.1, 0.1)], level) for _ in range(1_000)]
    assert np.mean([claim.verdict(each.low, each.high) == HOLDS for each in bounds]) >= 0.8


class Arrays(Scored):
    """A grid of arrays: losses of the same documents by standard and hybrids, as `Scored` compares them."""

    def __init__(self, excess: float, seeds: int, between_seeds: float, number: int) -> None:
        self.generator = np.random.default_rng([seeds, number])
        self.words = 300 * np.exp(self.generator.normal(0, 0.5, 62))  # as many documents as WikiText has
        self.seeds, self.between_seeds = seeds, between_seeds
        self.losses = {claim.left: self.loss(excess) for claim in HYBRIDS} | {"standard": self.loss(0.0)}

    def loss(self, excess: float) -> np.ndarray:
        drift = self.between_seeds * self.generator.standard_normal((self.seeds, 1))
        return self.words * (3 + excess + drift + NOISE * self.generator.standard_normal((self.seeds, 62)))

    def absent(self, pair: Pair) -> str:
        return ""

    def settings(self, side: Condition) -> list[str]:
        return []

    def deviation(self, metric: str, modes: set[str]) -> float | None:
        return None

    def compare(self, metric: str, pair: Pair, level: float) -> Outcome:
        one, other = (self.losses["standard" if c.variant == "standard" else f"{c.variant}:{c.layout}"] for c in pair)
        units = self.words.sum()
        scored = log_perplexity(other.mean(0), one.mean(0), self.words, level)
        return scored, over_seeds(other.sum(1) / units, one.sum(1) / units, level)


@pytest.mark.parametrize(("seeds", "grids"), [(1, 100), (3, 100), *slow((1, 1_000))])
def test_a_family_has_a_false_verdict_in_one_of_twenty_grids_at_most(seeds: int, grids: int) -> None:
    """All hybrids exactly at the margin, where each `holds` and each `fails` is false."""
    false: Counter[str] = Counter()
    for number in range(grids):
        scored = Arrays(HYBRIDS[0].margin, seeds, 0.01 * (seeds > 1), number)
        family = [Finding("m", claim, (), len(HYBRIDS), None) for claim in HYBRIDS]
        compared = [compare(scored, finding, finding.claim.pairs[0]) for finding in family]
        false.update({each.of_checkpoints if seeds == 1 else each.of_variant for each in compared})
    print(f"{seeds} seeds, {grids} grids, false: {false[HOLDS]} hold, {false[FAILS]} fail")
    # A share of 5 % is seen as up to 9 of 100.
    assert max(false[HOLDS], false[FAILS]) <= (9 if grids == 100 else 0.05 * grids)


def test_one_seed_tells_of_a_variant_beyond_five_deviations_of_others() -> None:
    claim = alone("difference")
    far, near = ({"mlp:uniform": excess, "rndembqk:even": 0.0} for excess in (0.3, 0.03))
    for loss, expected in ((far, HOLDS), (near, UNTOLD)):
        grid = Grid(loss, noise=0.001)
        assert grid.say(claim)["mixing"].of_variant == UNTOLD, "nothing is known of seeds"
        assert grid.say(claim)["mixing"].compared[0].needed == ("3 seeds or more",)
        others = Grid(loss, seeds=range(4), between_seeds=0.02, noise=0.001)
        grid.runs += [run for run in others.runs if run["variant"] == "rndembqk" and run["seed"]]
        grid.evaluation += [row for row in others.evaluation if row["variant"] == "rndembqk" and row["seed"]]
        found = grid.say(claim)["mixing"]
        assert (found.of_variant, found.of_checkpoints) == (expected, HOLDS)
    assert found.compared[0].needed[0].startswith("some ") and found.compared[0].needed[0].endswith(" seeds")


def test_what_is_needed_would_tell() -> None:
    """Four times the documents halve the bounds."""
    (found,) = Grid({"mlp:uniform": 0.004}, number=3).say(alone("difference")).values()
    (compared,) = found.compared
    assert compared.of_checkpoints == UNTOLD and compared.scored is not None
    low, high, value = compared.scored.low, compared.scored.high, compared.scored.value
    assert low is not None and high is not None
    needed = int(compared.needed[-1].split()[1].replace(",", ""))
    assert needed == pytest.approx(compared.scored.number * ((high - low) / 2 / value) ** 2, abs=1)
    (few,) = Grid({"mlp:uniform": 0.5}, documents=20).say(alone("difference")).values()
    assert few.of_checkpoints == UNTOLD
    assert few.compared[0].needed[-1].startswith(f"{FEWEST_DOCUMENTS} documents or more")


def test_bounds_shown_are_those_of_the_verdict_and_wider_in_a_family() -> None:
    loss: dict[str, float | None] = {claim.left: 0.02 for claim in HYBRIDS}
    family = Grid(loss).say(*HYBRIDS)["form-hybrid"]
    single = Grid(loss).say(HYBRIDS[0])["form-hybrid"]
    assert (family.level, single.level) == (pytest.approx(1 - 0.1 / 6), pytest.approx(0.9))
    wide, narrow = family.compared[0].scored, single.compared[0].scored
    assert wide and narrow and wide.low and narrow.low and wide.low < narrow.low
    # What the grid does not have does not widen the rest.
    part = Grid({"approximate:even": 0.02}).say(*HYBRIDS)
    assert part["form-hybrid"].comparisons == 1
    assert part["text-map-hybrid"].compared[0].absent == "not in this grid: fixedseqqk hybrid (even)"
    assert [each.rank for each in part.values()] == sorted(each.rank for each in part.values())


def test_other_settings_are_named() -> None:
    (found,) = Grid({"mlp:uniform": 1.0}, settings="lr0.001").say(alone("difference")).values()
    assert found.compared[0].settings[0] == "mlp uniform: trained with other settings than its model's: lr0.001"


def test_one_task_is_told_by_its_pairs_of_answers() -> None:
    grid = Grid({"mlp:uniform": 0.1}, {"standard": 0.6, "mlp:uniform": 0.5}, items=200)
    task = MULTIPLE_CHOICE[0]
    grid.samples = {place: rows for place, rows in grid.samples.items() if place[2] == task}
    found = Scored(grid.results(), "m").compare("accuracy", (Condition("mlp"), Condition("standard")), 0.95)
    standard, mlp = (grid.samples[f"{name}-uniform-0", "full", task]["correct"] for name in ("standard", "mlp"))
    assert found[0] == statistics.accuracy(standard.to_numpy(bool), mlp.to_numpy(bool)) and found[0].value < 0


def test_the_pages_say_what_was_found(tmp_path: Path) -> None:
    """Of held-out text, where WikiText was not evaluated; what is missing is said and not told."""
    folders = make_runs(tmp_path, missing=[("rndembqk", "uniform")], diverged=[("nonapproximate", "uniform")])
    tables = report(tmp_path, folders)
    draw("table_findings", tables, tmp_path, {"models": ["nano"]})
    rows = pd.read_parquet(tmp_path / "table_findings.parquet").set_index("claim")
    assert list(rows.columns) == [name for name in schema.FINDINGS.names if name != "claim"]
    samples = pd.read_parquet(tables / "samples.parquet").query("mode == 'full' and task == 'heldout'")
    sums = samples.astype({"run": str}).groupby("run")[["nll", "words"]].sum()
    losses = sums["nll"] / sums["words"]
    mlp, standard = (losses.filter(like=f"nano-{name}-uniform").item() for name in ("mlp", "standard"))
    assert rows.loc["mixing", "value"] == pytest.approx(mlp - standard) and rows.loc["mixing", "text"] == "heldout"
    page = html.unescape((tmp_path / "table_findings.html").read_text())
    for words in (
        "nano, 0.41M parameters, 1 seed each. Of 18 claims",
        "log-perplexity of Held-out, in nats a word",
        "WikiText was not evaluated here",
        "nonapproximate uniform diverged",
        "rndembqk uniform: not trained yet",
        "(nano: none)",
    ):
        assert words in page, words
    first = pd.read_csv(tmp_path / "table_findings.csv")
    assert first["of these checkpoints"].ne(UNTOLD).iloc[0] and first["of these checkpoints"].iloc[-1] == UNTOLD
    latex = (tmp_path / "table_findings.tex").read_text()
    assert latex.count(r"\begin{table*}") == 2 and r"$-$" in latex and "−" not in latex
