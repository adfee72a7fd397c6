"""Training-loss curves as they are drawn: seeds put together, smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deconattn.report.results import Results


@dataclass(frozen=True)
class Curve:
    """One model's loss over tokens: the smoothed mean over seeds, and the raw loss or the range over seeds."""

    variant: str
    hybrid: bool
    tokens: np.ndarray
    smooth: np.ndarray
    low: np.ndarray
    high: np.ndarray
    raw: np.ndarray
    seeds: int
    final: float
    diverged: bool


def curves_of(results: Results, model: str, layout: str, smoothing: float) -> list[Curve]:
    """The curves of a model in one layout, standard among them; variants without a training curve are left out."""
    curves = []
    for variant in results.variants(model):
        own = results.select_runs(model, variant, "uniform" if variant == "standard" else layout)
        steps = results.training[results.training["run"].isin(own["run"])]
        if not steps.empty:
            curves.append(_curve(steps, own, variant, layout == "even" and variant != "standard", smoothing))
    return curves


def _curve(steps: pd.DataFrame, runs: pd.DataFrame, variant: str, hybrid: bool, smoothing: float) -> Curve:
    """Seeds that were thinned alike stand in step; where one ended early the mean is over the others."""
    table = steps.pivot(index="tokens", columns="run", values="loss").sort_index()
    table = table.where(np.isfinite(table)).dropna(how="all")
    smoothed = np.column_stack([smooth(table[name].interpolate().to_numpy(), smoothing) for name in table])
    smoothed = np.where(table.notna(), smoothed, np.nan)
    final = runs["final_train_loss"].dropna()
    return Curve(
        variant, hybrid, table.index.to_numpy(dtype=float), np.nanmean(smoothed, axis=1), np.nanmin(smoothed, axis=1),
        np.nanmax(smoothed, axis=1), table.iloc[:, 0].to_numpy(), table.shape[1],
        float(final.mean()) if len(final) else float("nan"), bool((runs["status"] == "diverged").all()),
    )  # fmt: skip


def smooth(values: np.ndarray, share: float) -> np.ndarray:
    """Running mean over `share` of the values.

    The window is centred and shrinks towards the start, where the loss falls fast; at the end, where it is flat,
    it loses its right half instead, so that the last value is a mean over share / 2 of the curve.
    """
    n = len(values)
    index = np.arange(n)
    half = np.minimum(int(n * share / 2), index)
    low, high = index - half, np.minimum(index + half, n - 1) + 1
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[high] - total[low]) / (high - low)
