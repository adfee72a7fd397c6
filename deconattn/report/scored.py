"""What the runs of a model scored, document by document and item by item, and the difference of any two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.report import statistics, sweep
from deconattn.report.claims import Condition, Pair
from deconattn.report.names import AVERAGE, CHANCE, HELDOUT, WIKITEXT, accuracy_column
from deconattn.report.results import Results
from deconattn.report.statistics import Difference

ENOUGH = 3
"""Seeds of which a deviation is taken."""
Outcome = tuple[Difference, Difference] | str
"""left − right over documents or items, and over seeds; or why there is none."""


class Scored:
    """What the runs of one model scored, and left − right of any two of them."""

    def __init__(self, results: Results, model: str) -> None:
        self.results, self.model = results, model
        own = results.evaluation[results.evaluation["model"] == model]
        there = set(zip(own["task"], own["metric"], strict=True))
        self.recall = sorted({task for task, _ in there if task.startswith("recall_")})
        self.text = next((column for column in (WIKITEXT, HELDOUT) if (column.task, column.metric) in there), None)
        self._deviations: dict[tuple[str, frozenset[str]], float | None] = {}
        self._matrices: dict[tuple[Condition, str, str], pd.DataFrame] = {}
        notes = sweep.notes(results.all_runs)
        self._notes = notes[notes["model"] == model]

    def absent(self, pair: Pair) -> str:
        """The sides that this grid does not have, in words; empty where both are in it."""
        names = [side.label for side in pair if side.variant not in CHANCE and self._runs(side).empty]
        return f"not in this grid: {', '.join(names)}" if names else ""

    def settings(self, side: Condition) -> list[str]:
        """How what is shown of a side was chosen, or trained otherwise than its model."""
        own = self._notes[(self._notes["variant"] == side.variant) & (self._notes["layout"] == side.layout)]
        return [f"{replace(side, mode='full').label}: {reason}" for reason in own["reason"]]

    def compare(self, metric: str, pair: Pair, level: float) -> Outcome:
        """left − right of a pair that the grid has; bounds are those of two-sided intervals of `level`."""
        if metric == "log_perplexity":
            return self._losses(*pair, level)
        tasks, value = (self.recall, "value") if metric == "recall" else (MULTIPLE_CHOICE, "correct")
        return self._accuracies(*pair, level, tasks, value)

    def deviation(self, metric: str, modes: set[str]) -> float | None:
        """The largest deviation between seeds in these modes, of any model of the grid with `ENOUGH` seeds or more."""
        if (place := (metric, frozenset(modes))) in self._deviations:
            return self._deviations[place]
        if metric == "accuracy":
            rows = self.results.scores
            rows = rows[(rows["task"] == AVERAGE.task) & rows["mode"].isin(modes) & (rows["seeds"] >= ENOUGH)]
            found = rows["stderr"].max()
        elif metric == "recall":
            rows = self.results.evaluation
            rows = rows[rows["task"].isin(self.recall) & (rows["metric"] == "acc") & rows["mode"].isin(modes)]
            places = ["model", "variant", "layout", "mode"]
            means = rows.groupby([*places, "seed"])["value"].mean().groupby(places)
            found = means.std()[means.size() >= ENOUGH].max()
        else:
            rows = self.results.evaluation
            own = (rows["task"] == getattr(self.text, "task", None)) & (rows["metric"] == "word_perplexity")
            rows = rows[own & rows["mode"].isin(modes) & np.isfinite(rows["value"])]
            places = ["model", "variant", "layout", "mode", "context_length"]
            logs = np.log(rows["value"].astype(float)).groupby([rows[name] for name in places])
            found = logs.std()[logs.size() >= ENOUGH].max()
        self._deviations[place] = None if pd.isna(found) else float(found)
        return self._deviations[place]

    def _runs(self, side: Condition) -> pd.DataFrame:
        return self.results.select_runs(self.model, side.variant, side.layout)

    def _matrix(self, side: Condition, task: str, value: str) -> pd.DataFrame:
        """What was scored, a column a seed: of each document, or for accuracies of each item; inf for what is no number.

        A training that diverged and was not evaluated has losses of inf.
        """
        if (place := (side, task, value)) in self._matrices:
            return self._matrices[place]
        keys = ["document"] if value in ("nll", "words") else ["document", "item"]
        columns, lost = {}, []
        for run, seed, status in self._runs(side)[["run", "seed", "status"]].itertuples(index=False):
            if (rows := self.results.samples.get((run, side.mode, task))) is not None:
                values = rows[value].astype(float).fillna(np.inf)
                columns[int(seed)] = values.groupby([rows[key] for key in keys]).sum()
            elif status == "diverged" and value == "nll":
                lost.append(int(seed))
        found = pd.DataFrame(columns)
        found[lost] = np.inf
        self._matrices[place] = found
        return found

    def _losses(self, left: Condition, right: Condition, level: float) -> Outcome:
        """Of log-perplexity, nats a word of `text`; a model that diverged is infinitely worse."""
        if self.text is None:
            return "no text was evaluated"
        one, other = (self._matrix(side, self.text.task, "nll") for side in (left, right))
        words = next(
            (w for side in (left, right) if len(w := self._matrix(side, self.text.task, "words"))), pd.DataFrame()
        )
        # Where all seeds diverged, no document says so.
        one, other = (own if len(own) else own.reindex(words.index, fill_value=np.inf) for own in (one, other))
        one, other = one.align(other, join="inner")
        if not one.size:
            return "not evaluated with the same seed and text"
        units = words.loc[one.index].iloc[:, 0].to_numpy()
        value, seeds = float(one.to_numpy().sum() - other.to_numpy().sum()), one.shape[1]
        if np.isnan(value):
            return "both diverged"
        if np.isinf(value):
            return Difference(value, "documents", len(one), value, value), Difference(value, "seeds", seeds)
        means = [own.mean(axis=1).to_numpy() for own in (other, one)]
        by_seed = [(own.sum() / units.sum()).tolist() for own in (other, one)]
        over_documents = statistics.log_perplexity(means[0], means[1], units, level)
        return over_documents, statistics.over_seeds(by_seed[0], by_seed[1], level)

    def _accuracies(self, left: Condition, right: Condition, level: float, tasks: Sequence[str], value: str) -> Outcome:
        """Of mean accuracy over the tasks that both sides answered; one of them may be a baseline."""
        found = []
        for task in tasks:
            one, other = (self._matrix(side, task, value) for side in (left, right))
            if right.variant in CHANCE:
                other = one * 0 + self._chance(right, task)
            if left.variant in CHANCE:
                one = other * 0 + self._chance(left, task)
            if one.empty or other.empty:
                continue
            one, other = one.align(other, join="inner")
            if one.size and np.isfinite(one + other).all(axis=None):
                found.append((other, one))
        seeds = list(set.intersection(*(set(one) for _, one in found))) if found else []
        if not seeds:
            return "no task that both answered with the same seed"
        both = [(other[seeds].mean(axis=1).to_numpy(), one[seeds].mean(axis=1).to_numpy()) for other, one in found]
        by_seed = [np.mean([pair[side][seeds].mean() for pair in found], axis=0).tolist() for side in (0, 1)]
        if len(both) == 1 and np.isin(both[0], (0, 1)).all():
            standard, variant = both[0]
            over_items = statistics.accuracy(standard.astype(bool), variant.astype(bool), level)
        else:
            over_items = statistics.mean_accuracy(both, level)
        return over_items, statistics.over_seeds(by_seed[0], by_seed[1], level)

    def _chance(self, baseline: Condition, task: str) -> float:
        value = self.results.baseline(baseline.variant, accuracy_column(task)).value
        return np.nan if value is None else value
