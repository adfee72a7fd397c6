"""Evaluate a trained run on held-out sequences of associative recall: accuracy of the answers (docs/recall.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deconattn.data.recall import distances, pairs_of, task_of
from deconattn.data.table import TokenTable, heldout_rows
from deconattn.evaluation.modes import in_mode
from deconattn.evaluation.schema import EVALUATION, SAMPLES
from deconattn.files import read_json
from deconattn.load import load_language_model
from deconattn.result_tables import run_columns, write_rows


def evaluate_recall(
    run_folder: Path, tokens: Path, modes: Sequence[str], batch_size: int, device: str, out_folder: Path
) -> None:
    """Write evaluation.parquet: for each mode and number of pairs the accuracy (`acc`), and by distance (`acc_distance_3`).

    An answer is right if its token is the most likely of the whole vocabulary. Distances are of `data.recall.distances`.
    samples.parquet has a row a sequence, with the share of its answers that are right.

    Args:
        run_folder: holds spec.json and model/.
        tokens: the token table that the run was trained on.
        modes: as in `evaluate_model`.
        batch_size: sequences in one forward pass.
        device: "auto" (a GPU if there is one), "cpu", "cuda".
        out_folder: where to write.

    Raises:
        UserError: a file that is missing or does not fit.
    """
    model = load_language_model(run_folder / "model", device)
    with TokenTable(tokens) as table:
        length, scored = table.context_length, table.scored
    rows = heldout_rows(tokens, length)
    pairs, distance = pairs_of(rows), distances(rows)[:, scored.start // 2 :]
    identity, found, samples = run_columns(read_json(run_folder / "spec.json")), [], []
    for mode in modes:
        with in_mode(model, mode):
            right = hits(model, rows, scored, batch_size)
        for count in np.unique(pairs).tolist():
            own = pairs == count
            groups = {"acc": np.ones_like(right[own])}
            groups |= {f"acc_distance_{far}": distance[own] == far for far in np.unique(distance[own]).tolist()}
            place = {**identity, "mode": mode, "task": task_of(count), "context_length": length}
            found += [{**place, "metric": name, **share(right[own], group)} for name, group in groups.items()]
            place = {
                "run": identity["run"],
                "mode": mode,
                "task": task_of(count),
                "context_length": length,
                "metric": "acc",
            }
            each = zip(np.flatnonzero(own).tolist(), right[own].mean(axis=1).tolist(), strict=True)
            samples += [{**place, "item": item, "document": f"{item:016d}", "value": value} for item, value in each]
            print(f"{task_of(count)} ({mode}): acc {right[own].mean():.4g}; {right[own].size} answers", flush=True)
    write_rows(out_folder / "samples.parquet", samples, SAMPLES)
    write_rows(out_folder / "evaluation.parquet", found, EVALUATION)


@torch.inference_mode()
def hits(model: Any, rows: np.ndarray, scored: slice, batch_size: int) -> np.ndarray:
    """Which of the scored targets of rows (N, L) are the model's most likely tokens: boolean (N, answers)."""
    device, found = next(model.parameters()).device, []
    for batch in torch.from_numpy(rows).split(batch_size):
        hidden = model.final_hidden(batch.to(device))[:, :-1][:, scored]
        found.append((model.lm_head(hidden).argmax(-1).cpu() == batch[:, 1:][:, scored]).numpy())
    return np.concatenate(found)


def share(right: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """The share of right answers (N, answers) in a group of them, and its standard error, with sequences as clusters."""
    count, value = int(group.sum()), float(right[group].mean())
    apart = ((right - value) * group).sum(axis=1)
    return {"value": value, "stderr": float(np.sqrt((apart**2).sum())) / count, "items": count}
