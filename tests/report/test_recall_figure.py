"""`figure_recall`: dots are the runs' own shares, guesses those of recall alone, and a line needs two numbers of pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deconattn.report import schema, style
from deconattn.report.draw import Drawing
from deconattn.report.recall_figure import figure_recall
from tests.figure_words import assert_words_apart, words
from tests.report.markers import dots_of
from tests.report.test_recall_findings import GUESSES, TRUTH, grid


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


def test_one_number_of_pairs_is_no_line() -> None:
    labels = [axes.get_xlabel() for axes in drawn(["recall_4"])[0].figure.axes]
    assert "pairs" not in labels and "update" in labels
    assert "pairs" in [axes.get_xlabel() for axes in drawn(list(GUESSES))[0].figure.axes]
