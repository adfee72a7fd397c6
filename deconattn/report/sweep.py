"""Runs of one model that differ in training settings: what they were trained with, and which exhibits show.

A sweep is a (model, variant, layout) with several settings. Shown is the setting with the lowest held-out loss at the end
of training, the mean over its seeds; the runs of the others stay in `runs.parquet`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

COLUMNS = [
    ("settings", pa.string()),  # as in the run's name: what differs from its model's training; empty for nothing
    ("sequences_per_step", pa.int64()),
    ("peak_learning_rate", pa.float64()),
    ("warmup_steps", pa.int64()),
    ("beta1", pa.float64()),
    ("beta2", pa.float64()),
    ("eps", pa.float64()),
    ("weight_decay", pa.float64()),
    ("gradient_clip", pa.float64()),
    ("precision", pa.string()),
]
"""Columns of `runs.parquet` that say how a run was trained; null but for `settings` where it has no spec yet."""

_MODEL = ["model", "variant", "layout"]


def settings_of(training: dict[str, Any]) -> dict[str, Any]:
    """The columns of a run but `settings`, from the training settings of its spec."""
    beta1, beta2 = training.get("betas") or (None, None)
    return {name: training.get(name) for name, _ in COLUMNS[1:]} | {"beta1": beta1, "beta2": beta2}


def is_best(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which rows of `runs.parquet` are shown: all of a model that is no sweep; of a sweep those of its best setting.

    A setting of which a seed diverged is behind every other. Where no held-out loss is known yet, the first setting is
    shown, so that what is missing is named once.
    """
    shown = pd.Series(True, index=runs.index, dtype=bool)
    for _, sweep in runs.groupby(_MODEL, sort=False):
        shown[sweep.index] = sweep["settings"] == _losses(sweep).index[0]
    return shown


def notes(runs: pd.DataFrame) -> pd.DataFrame:
    """How what is shown of each sweep was chosen, and what was trained otherwise than its model, as rows of the gaps."""
    rows = []
    for keys, sweep in runs.groupby(_MODEL, sort=False):
        losses = _losses(sweep)
        first, known = losses.index[0], int(np.isfinite(losses).sum())
        unknown = f" ({losses.size - known} without one)" if known < losses.size else ""
        if losses.size == 1 and not first:
            continue
        if losses.size == 1:
            reason = f"trained with other settings than its model's: {first}"
        elif not known:
            reason = f"a sweep of {losses.size} settings, none of them with a held-out loss yet"
        else:
            shown = first or "the setting of its model"
            reason = f"{shown} is shown, the lowest held-out loss of {losses.size} settings{unknown}"
        rows.append({**dict(zip(_MODEL, keys, strict=True)), "stage": "sweep", "reason": reason})
    return pd.DataFrame(rows, columns=[*_MODEL, "stage", "reason"])


def _losses(sweep: pd.DataFrame) -> pd.Series[float]:
    """Setting → held-out loss, the mean over seeds, best first; infinite where it is not known or a seed diverged."""
    loss = sweep["final_heldout_loss"].astype(float).mask(sweep["status"] == "diverged", np.inf)
    means = loss.groupby(sweep["settings"], sort=False).mean().fillna(np.inf)
    return means.sort_values(kind="stable")
