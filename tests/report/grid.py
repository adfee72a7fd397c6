"""A grid in memory whose truth is set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.report.claims import Claim, Condition, load_claims
from deconattn.report.findings import Finding, findings
from deconattn.report.results import Results
from tests.report import Rows, in_memory

NOISE = 0.05
"""Deviation of a document's excess, nats a word."""


class Grid:
    """A grid in memory: a model `m` whose log-perplexities and accuracies are as they are set.

    loss: `variant:layout[:mode]` → nats a word above standard; None: diverged, not evaluated. accuracy: the same → share of
    right answers. between_seeds: deviation of a model's loss (and of its accuracy, in tenths) between seeds.
    """

    def __init__(
        self,
        loss: dict[str, float | None],
        accuracy: dict[str, float] | None = None,
        *,
        seeds: Sequence[int] = (0,),
        between_seeds: float = 0.0,
        documents: int = 100,
        items: int = 1_000,
        noise: float = NOISE,
        number: int = 0,
        **runs: object,
    ) -> None:
        generator = np.random.default_rng(number)
        words = np.round(300 * np.exp(generator.normal(0, 0.5, documents)))
        hardness = 3 + generator.normal(0, 0.3, documents)
        luck = generator.random((len(MULTIPLE_CHOICE), items))
        self.runs: Rows = []
        self.evaluation: Rows = []
        self.samples: dict[tuple[str, str, str], pd.DataFrame] = {}
        for name, excess in ({"standard": 0.0} | loss).items():
            side = Condition(*name.split(":"))
            variant, layout, mode = side.variant, side.layout, side.mode
            for seed in seeds:
                identity = {"run": f"{variant}-{layout}-{seed}", "model": "m", "variant": variant, "layout": layout}
                identity |= {"seed": seed}
                status = "diverged" if excess is None else "finished"
                if mode == "full":
                    self.runs.append({**identity, "status": status, "settings": "", "context_length": 32, **runs})
                if excess is None:
                    continue
                drift = between_seeds * generator.standard_normal()
                nll = words * (hardness + excess + drift + noise * generator.standard_normal(documents) / np.sqrt(2))
                perplexity = np.exp(nll.sum() / words.sum())
                self._add(identity, mode, "wikitext", "word_perplexity", perplexity, nll=nll, words=words)
                if (share := (accuracy or {}).get(name)) is None:
                    continue
                for task, own in zip(MULTIPLE_CHOICE, luck, strict=True):
                    # Half of what a model knows of an item is its own.
                    mixed = np.where(generator.random(items) < 0.5, own, generator.random(items))
                    right = mixed < share + drift / 10
                    self._add(identity, mode, task, "acc", right.mean(), correct=right.astype(float))

    def _add(self, identity: Any, mode: str, task: str, metric: str, value: float, **columns: np.ndarray) -> None:
        numbers = np.arange(len(next(iter(columns.values()))))
        self.samples[str(identity["run"]), mode, task] = pd.DataFrame({"document": numbers, "item": numbers, **columns})
        place = {"mode": mode, "task": task, "metric": metric, "context_length": 32}
        self.evaluation.append({**identity, **place, "value": value, "stderr": 0.01})

    def results(self) -> Results:
        guess = {"baseline": "random_guess", "metric": "acc", "value": 0.25, "items": 9}
        return in_memory(self.runs, self.evaluation, [{**guess, "task": t} for t in MULTIPLE_CHOICE], self.samples)

    def say(self, *claims: Claim) -> dict[str, Finding]:
        return {each.claim.claim: each for each in findings(self.results(), "m", claims or load_claims())}
