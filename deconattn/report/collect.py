"""Gather what the runs of a configuration left into the few tables that the report is drawn from.

Reads of each run folder `spec.json`, `done.json`, `train.parquet`, `evaluation.parquet` and the header of
`model/model.safetensors`; writes `runs`, `evaluation`, `training` and `gaps` as Parquet. A run or
an evaluation that is not there is a row of `gaps`, never an error and never a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from deconattn.errors import UserError
from deconattn.files import read_json, sha256_file
from deconattn.report import schema

MAX_POINTS = 5_000
"""Points of a training curve that are kept; a longer curve is averaged into at most so many bins."""

_RUN_NAME = re.compile(r"(?P<model>.+)-(?P<variant>[^-]+)-(?P<layout>[a-z]+)-s(?P<seed>\d+)-(?P<hash>[0-9a-f]{8})")
_SIDE_BUFFERS = {"model.side_embeddings", "model.side_input_ids"}


def collect(
    run_folders: Sequence[Path],
    out: Path,
    baselines: Path | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Write `<out>/tables/{runs,evaluation,training,gaps}.parquet` from the runs of one configuration.

    Args:
        run_folders: the folders of all the runs that belong to the report, whether they exist yet or not.
        out: the report's folder, `results/reports/<name>`.
        baselines: Parquet of random-guess and majority values (baseline, task, metric, value, items), which is
            copied to `<out>/tables/baselines.parquet` unless it is that file; None: what lies there is used.
        notes: run → what is to be said of it wherever it is shown, as that it stands in for another ("": nothing).

    Returns: the gaps, one line each.
    Raises: `UserError` for a file that is broken, for a folder whose name is no run's, and for two runs
    of the same model, variant, layout and seed (they would be averaged as if they were two seeds).
    """
    runs, evaluations, curves, gaps = [], [], [], []
    for folder in map(Path, run_folders):
        run, curve, evaluation, missing = _read_run(folder)
        runs.append(run)
        gaps += missing
        if notes.get(folder.name):
            gaps.append(_gap(run, "stale", notes[folder.name]))
        if curve is not None:
            curves.append(_labelled(thin(curve), run))
        if evaluation is not None:
            evaluations.append(evaluation)
    _refuse_twins(runs)
    tables = Path(out) / "tables"
    kept = tables / "baselines.parquet"
    if baselines is not None and baselines.is_file():
        frame = schema.read_table(baselines, schema.BASELINES)
        # Written over itself it would be newer than what is drawn from it, and the workflow would never come to rest.
        if baselines.resolve() != kept.resolve():
            schema.write_table(frame, schema.BASELINES, kept)
    elif not kept.is_file():
        gaps.append({"stage": "baselines", "reason": "random-guess and majority values were not computed"})
    schema.write_table(pd.DataFrame(runs), schema.RUNS, tables / "runs.parquet")
    schema.write_table(_stack(evaluations), schema.EVALUATION, tables / "evaluation.parquet")
    schema.write_table(_stack(curves), schema.TRAINING, tables / "training.parquet")
    schema.write_table(pd.DataFrame(gaps), schema.GAPS, tables / "gaps.parquet")
    return [f"{gap.get('run', 'report')}: {gap['reason']}" for gap in gaps]


def thin(curve: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """A training curve of at most `most` rows: itself if it is short, else means over equal runs of steps.

    Step, tokens and seconds are those at the end of a bin; a bin with a loss that is not finite keeps that.
    """
    width = math.ceil(len(curve) / most)
    if width <= 1:
        return curve.assign(steps_averaged=1)
    bins = np.arange(len(curve)) // width
    grouped = curve.groupby(bins)
    last = grouped[["step", "tokens", "seconds", "peak_memory_bytes"]].last()
    # Series.mean of pandas leaves NaN out, which would hide a divergence.
    mean = grouped[["loss", "learning_rate", "grad_norm", "tokens_per_second", "data_seconds", "mfu"]].mean(
        skipna=False
    )
    heldout = grouped["heldout_loss"].mean()
    return last.join(mean).join(heldout).assign(steps_averaged=grouped.size())


def _read_run(
    folder: Path,
) -> tuple[dict[str, Any], pd.DataFrame | None, pd.DataFrame | None, list[dict[str, Any]]]:
    run = _identity(folder)
    gaps: list[dict[str, Any]] = []
    curve_file, done_file = folder / "train.parquet", folder / "done.json"
    done = read_json(done_file) if done_file.is_file() else None
    curve = schema.read_table(curve_file, schema.TRAIN) if curve_file.is_file() else None
    run["status"] = _status(done, curve)
    if run["status"] == "missing":
        return run, None, None, [_gap(run, "pretrain", _why_missing(folder, curve))]
    run |= _numbers(folder, done or {}, curve) | {"packages": _packages(folder, done or {})}
    if run["status"] == "diverged":
        after = "" if curve is None else f" (after {len(curve):,} steps)"
        gaps.append(_gap(run, "pretrain", f"training diverged{after}"))
    evaluation = None
    if (folder / "evaluation.parquet").is_file():
        evaluation = schema.read_table(folder / "evaluation.parquet", schema.EVALUATION)
        strangers = set(evaluation["run"]) - {folder.name}
        if strangers:
            raise UserError(f"{folder / 'evaluation.parquet'}: holds values of another run ({sorted(strangers)[0]})")
    elif run["status"] == "finished":
        gaps.append(_gap(run, "evaluate", "not evaluated yet"))
    return run, curve, evaluation, gaps


def _identity(folder: Path) -> dict[str, Any]:
    """Run, model, variant, layout and seed: of the spec where there is one, else of the folder's name."""
    if (folder / "spec.json").is_file():
        spec = read_json(folder / "spec.json")
        try:
            model, tokens = spec["model"], spec.get("tokens") or {}
            return {
                "run": folder.name,
                "model": model["name"],
                "variant": model["variant"],
                "layout": model["layout"],
                "seed": int(spec["seed"]),
                "layers": model.get("num_hidden_layers"),
                "context_length": _context_length(folder, tokens),
                "data": tokens.get("id"),
                "data_sha256": _data_digest(folder, tokens),
                "code": spec.get("code"),
            }
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / 'spec.json'}: not a run's spec, {error} is missing") from None
    match = _RUN_NAME.fullmatch(folder.name)
    if match is None:
        raise UserError(f"{folder}: not a run's folder; allowed: <model>-<variant>-<layout>-s<seed>-<8 hex digits>")
    parts = match.groupdict()
    del parts["hash"]
    return {"run": folder.name, **parts, "seed": int(parts["seed"])}


def _status(done: dict[str, Any] | None, curve: pd.DataFrame | None) -> str:
    finite = curve is None or curve.empty or bool(np.isfinite(curve["loss"].iloc[-1]))
    if not finite or (done is not None and (done.get("status") == "diverged" or done.get("diverged"))):
        return "diverged"
    return "missing" if done is None else "finished"


def _why_missing(folder: Path, curve: pd.DataFrame | None) -> str:
    if curve is not None and not curve.empty:
        return f"training is not finished (step {curve['step'].iloc[-1]:,})"
    stem = folder.name.rpartition("-")[0]
    others = [p.name for p in folder.parent.glob(f"{stem}-*") if p != folder and (p / "done.json").is_file()]
    if others:
        return f"not trained with these settings and this code (with others it is: {', '.join(sorted(others))})"
    return "not trained yet"


def _numbers(folder: Path, done: dict[str, Any], curve: pd.DataFrame | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {"parameters": done.get("parameters") or _count_parameters(folder)}
    if curve is None or curve.empty:
        return numbers
    heldout = curve["heldout_loss"].dropna()
    # One batch's loss is noise: the last hundredth of the steps, ten at least, is what is reported.
    tail = curve["loss"].iloc[-max(10, len(curve) // 100) :]
    # Over the whole training, without checkpoints and held-out losses: time of an update is its tokens over their rate.
    seconds = (curve["tokens"].diff().fillna(curve["tokens"]) / curve["tokens_per_second"]).sum()
    peak = curve["peak_memory_bytes"].max()
    return numbers | {
        "tokens_per_second": float(curve["tokens"].iloc[-1] / seconds) if seconds else None,
        "mfu": float(curve["mfu"].mean()) if curve["mfu"].notna().any() else None,
        "data_share": float(curve["data_seconds"].sum() / seconds) if seconds else None,
        "peak_memory_bytes": None if pd.isna(peak) else int(peak),
        "tokens": int(curve["tokens"].iloc[-1]),
        "steps": int(curve["step"].iloc[-1]),
        "final_train_loss": float(tail.mean(skipna=False)),
        "final_heldout_loss": float(heldout.iloc[-1]) if len(heldout) else None,
    }


def _packages(folder: Path, done: dict[str, Any]) -> str | None:
    """What the training and the evaluation recorded of the packages that computed them: name and version, in one line."""
    evaluated = folder / "evaluation.json"
    records = [done, read_json(evaluated) if evaluated.is_file() else {}]
    found = {f"{name} {number}" for record in records for name, number in (record.get("versions") or {}).items()}
    return ", ".join(sorted(found)) or None


def _count_parameters(folder: Path) -> int | None:
    """Elements of all tensors in model.safetensors but the fixed side streams, read from its JSON header."""
    path = folder / "model" / "model.safetensors"
    if not path.is_file():
        return None
    with open(path, "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    weights = {k: v for k, v in header.items() if k != "__metadata__" and k not in _SIDE_BUFFERS}
    return sum(math.prod(entry["shape"]) for entry in weights.values())


def _manifest(folder: Path, tokens: dict[str, Any]) -> Path:
    return folder.parent.parent / "tokens" / str(tokens.get("id")) / "manifest.json"


def _data_digest(folder: Path, tokens: dict[str, Any]) -> str | None:
    """SHA-256 of the tokens' manifest, which names the sum of every part; null when nobody wrote it down."""
    if tokens.get("manifest_sha256"):
        return str(tokens["manifest_sha256"])
    manifest = _manifest(folder, tokens)
    return sha256_file(manifest) if manifest.is_file() else None


def _context_length(folder: Path, tokens: dict[str, Any]) -> int | None:
    """The length that the run was trained with, as its tokens' manifest has it."""
    if tokens.get("context_length"):
        return int(tokens["context_length"])
    manifest = _manifest(folder, tokens)
    return read_json(manifest)["context_length"] if manifest.is_file() else None


def _labelled(curve: pd.DataFrame, run: dict[str, Any]) -> pd.DataFrame:
    return curve.assign(**{name: run[name] for name in ("run", "model", "variant", "layout", "seed")})


def _gap(run: dict[str, Any], stage: str, reason: str) -> dict[str, Any]:
    identity = {name: run[name] for name in ("run", "model", "variant", "layout", "seed")}
    return {**identity, "stage": stage, "reason": reason}


def _refuse_twins(runs: list[dict[str, Any]]) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for run in runs:
        key = tuple(run[name] for name in ("model", "variant", "layout", "seed"))
        if key in seen:
            raise UserError(f"runs {seen[key]} and {run['run']}: same model, variant, layout and seed; name one")
        seen[key] = run["run"]


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
