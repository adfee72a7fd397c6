"""What is said of the predictions on recall, on grids whose truth is set, and what `figure_recall` shows of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deconattn.report import schema, style
from deconattn.report.claims import FAILS, HOLDS, UNTOLD, load_claims
from deconattn.report.draw import Drawing
from deconattn.report.findings import Finding, findings
from deconattn.report.recall_figure import figure_recall
from deconattn.report.results import Results
from tests.figure_words import assert_words_apart, dots_of, words
from tests.report import in_memory

ANSWERS = 8
GUESSES = {
    "recall_4": {"random_guess": 1 / 16, "random_pair": 0.30},
    "recall_8": {"random_guess": 1 / 16, "random_pair": 0.18},
}


def grid(shares: dict[str, tuple[float, float]], seeds: int, sequences: int = 400) -> Results:
    """A model `m` of which `variant:layout` answers that share of its questions, with 4 pairs and with 8."""
    generator = np.random.default_rng(0)
    runs, evaluation, samples = [], [], {}
    for name, share in shares.items():
        variant, layout = name.split(":")
        for seed in range(seeds):
            identity = {"run": f"{name}-{seed}", "model": "m", "variant": variant, "layout": layout, "seed": seed}
            runs.append({**identity, "status": "finished", "settings": "", "context_length": 32})
            for task, own in zip(GUESSES, share, strict=True):
                values = generator.binomial(ANSWERS, own, sequences) / ANSWERS
                numbers = np.arange(sequences)
                samples[str(identity["run"]), "full", task] = pd.DataFrame(
                    {"document": numbers, "item": numbers, "value": values}
                )
                place = {"mode": "full", "task": task, "metric": "acc", "context_length": 32}
                evaluation.append({**identity, **place, "value": values.mean(), "stderr": 0.01})
    guesses = [
        {"baseline": name, "task": task, "metric": "acc", "value": value, "items": 9}
        for task, own in GUESSES.items()
        for name, value in own.items()
    ]
    return in_memory(runs, evaluation, guesses, samples)


def say(results: Results) -> dict[str, Finding]:
    return {each.claim.claim: each for each in findings(results, "m", load_claims())}


HIGH, PAIR, GUESS, BETWEEN = (1.0, 1.0), (0.31, 0.19), (1 / 16, 1 / 16), (0.6, 0.5)
TRUTH = {
    "standard:uniform": HIGH, "mlp:uniform": GUESS, "mlp:even": PAIR, "mlp:odd": BETWEEN,
    "rndembqk:uniform": PAIR, "rndembqk:even": HIGH, "rndembqk:odd": PAIR,
    "fixedseqqk:uniform": PAIR, "fixedseqqk:even": (0.9, 0.85), "fixedseqqk:odd": PAIR,
    "staticembqk:uniform": BETWEEN, "staticembqk:even": HIGH, "staticembqk:odd": BETWEEN,
    "nonapproximate:uniform": PAIR, "nonapproximate:even": PAIR, "nonapproximate:odd": (0.40, 0.28),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 4])
def test_each_prediction_comes_out_right(seeds: int) -> None:
    found = say(grid(TRUTH, seeds))
    expected = {
        "recall-standard": HOLDS,
        "recall-map-above": FAILS,  # fixedseqqk is not there
        "recall-map-below": HOLDS,
        "recall-static-above": HOLDS,
        "recall-static-worse": HOLDS,
        "recall-static-better": HOLDS,
        "recall-key-scores": UNTOLD,  # one is at the margin
        "recall-no-mixing": HOLDS,
        "recall-mixing-once": FAILS,
        "recall-forms": UNTOLD,  # they are not in this grid
    }
    assert {name: each.of_checkpoints for name, each in found.items()} == expected
    if seeds == 1:
        assert {each.of_variant for each in found.values()} == {UNTOLD}
    else:
        told = {name: verdict for name, verdict in expected.items() if name != "recall-key-scores"}
        assert {name: found[name].of_variant for name in told} == told


def test_values_are_means_over_numbers_of_pairs() -> None:
    results = grid(TRUTH, 2)
    (compared,) = say(results)["recall-no-mixing"].compared
    right = [
        results.samples[f"mlp:uniform-{seed}", "full", task]["value"].mean() for seed in (0, 1) for task in GUESSES
    ]
    assert compared.scored is not None and compared.scored.value == pytest.approx(np.mean(right) - 1 / 16)


def test_predictions_are_of_grids_of_recall_alone() -> None:
    assert {each.claim.metric for each in say(grid(TRUTH, 1)).values()} == {"recall"}
    pairs = [(claim, pair) for claim in load_claims() if claim.metric == "recall" for pair in claim.pairs]
    assert {side.layout for _, pair in pairs for side in pair} == {"uniform", "even", "odd"}
    assert all(claim.printed(pair) is None for claim, pair in pairs), "none has a published value"


def drawn(tasks: list[str]) -> tuple[Drawing, pd.DataFrame]:
    """The figure of three seeds with these tasks beside one of text; a row of samples for each run and task."""
    results = grid(TRUTH, 3)
    runs, guesses = results.all_runs, results.baselines
    text = {"baseline": "random_guess", "task": "arc_easy", "metric": "acc", "value": 0.25, "items": 9}
    curves = [
        pd.DataFrame({"run": run, "model": "m", "variant": variant, "layout": layout, "step": steps, "loss": 3 - steps / 50})
        for run, variant, layout in runs[["run", "variant", "layout"]].itertuples(index=False)
        for steps in [np.arange(1, 61)]
    ]  # fmt: skip
    results.__dict__ |= {
        "baselines": pd.concat([guesses[guesses["task"].isin(tasks)], pd.DataFrame([text])], ignore_index=True),
        "evaluation": results.evaluation[results.evaluation["task"].isin(tasks)],
        "training": pd.concat(curves, ignore_index=True),
        "gaps": pd.DataFrame(columns=schema.GAPS.names),
    }
    shares = [
        {"name": run.rpartition("-")[0], "task": task, "share": rows["value"].mean()}
        for (run, _, task), rows in results.samples.items()
    ]
    with style.styled():
        return figure_recall(results, {"model": "m"}), pd.DataFrame(shares)


def test_dots_and_guesses_are_those_of_the_runs() -> None:
    drawing, shares = drawn(list(GUESSES))
    panels = {axes.get_title("left"): axes for axes in drawing.figure.axes}
    for task, own in GUESSES.items():
        axes = panels[f"{task.removeprefix('recall_')} pairs"]
        means = shares[shares["task"] == task].groupby("name")["share"].mean()
        assert sorted(x for _, x in dots_of(axes)) == pytest.approx(sorted(100 * means))
        lines = [line.get_xdata()[0] for line in axes.lines if line.get_transform() != axes.transData]
        assert sorted(lines) == pytest.approx(sorted(100 * value for value in own.values())), "none is of a text"
    assert_words_apart(drawing.figure)
    assert "Means over seeds" in words(drawing.figure)
    assert "pairs" in [axes.get_xlabel() for axes in drawing.figure.axes]


def test_one_number_of_pairs_is_no_line() -> None:
    labels = [axes.get_xlabel() for axes in drawn(["recall_4"])[0].figure.axes]
    assert "pairs" not in labels and "update" in labels
