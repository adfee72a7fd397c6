"""Gather what runs and measurements left into the few tables that the report is drawn from.

What is not there is a row of a table of gaps, never an error and never a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from deconattn.analysis.schema import ATTENTION, COSTS, DIFFERENCES, SCORES, reason_of
from deconattn.experiment.record import amount
from deconattn.files import read_json
from deconattn.report import schema, sweep

MAX_POINTS = 5_000
"""Points of a training curve that are kept; a longer curve is averaged into at most so many bins."""
NOT_RUN = "not run yet"
"""The reason of what was never begun (`experiment.record.last_attempt`)."""
_RUN_NAME = re.compile(
    r"(?P<model>.+)-(?P<variant>[^-]+)-(?P<layout>[a-z][a-z0-9]*)-s(?P<seed>\d+)(?:-(?P<settings>.+))?-[0-9a-f]{8}"
)
_IDENTITY = ("run", "model", "variant", "layout", "seed")

Row = dict[str, Any]


def collect(
    runs: Mapping[Path, Path],
    out: Path,
    baselines: Sequence[Path] = (),
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Write `<out>/{runs,evaluation,samples,training,gaps}.parquet` from the runs of one configuration.

    Args:
        runs: folder of a run → folder of its evaluation, whether they exist yet or not.
        out: a folder of tables.
        baselines: Parquet of random-guess and majority values, which go into `<out>/baselines.parquet`.
        reasons: folder of a run or an evaluation → why nothing is to be read from it.

    Returns: the gaps, one line each. Raises: `UserError` for a file that is broken.
    """
    rows, evaluations, samples, curves, gaps = [], [], [], [], []
    for folder, evaluated in runs.items():
        run, reason = _identity(folder), reasons.get(str(folder))
        rows.append(run)
        if reason is not None or not (folder / "record.json").is_file():
            gaps.append(_gap(run, "pretrain", _undone("trained", reason)))
            continue
        curve = schema.read_table(folder / "train.parquet", schema.TRAIN)
        run |= _of_training(folder, evaluated, curve)
        curves.append(thin(curve).assign(**{name: run[name] for name in _IDENTITY}))
        if run["status"] == "diverged":
            gaps.append(_gap(run, "pretrain", f"training diverged (after {len(curve):,} steps)"))
        if (evaluated / "evaluation.parquet").is_file() and str(evaluated) not in reasons:
            evaluation = schema.read_table(evaluated / "evaluation.parquet", schema.EVALUATION)
            # An adopted run has another name in its files.
            evaluations.append(evaluation.assign(run=folder.name))
            samples.append(schema.read_table(evaluated / "samples.parquet", schema.SAMPLES).assign(run=folder.name))
        elif run["status"] == "finished":
            gaps.append(_gap(run, "evaluate", _undone("evaluated", reasons.get(str(evaluated)))))
    if guesses := [schema.read_table(path, schema.BASELINES) for path in baselines if path.is_file()]:
        _write(guesses, schema.BASELINES, out, "baselines")
    if not baselines or len(guesses) < len(baselines):
        gaps.append({"stage": "baselines", "reason": "random-guess and majority values were not computed"})
    _write([pd.DataFrame(rows)], schema.RUNS, out, "runs")
    _write(evaluations, schema.EVALUATION, out, "evaluation")
    _write(samples, schema.SAMPLES, out, "samples")
    _write(curves, schema.TRAINING, out, "training")
    _write([pd.DataFrame(gaps)], schema.GAPS, out, "gaps")
    return [f"{each.get('run', 'report')}: {each['reason']}" for each in gaps]


def collect_analysis(
    runs: Mapping[Path, Path], out: Path, reasons: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Write `<out>/{attention,scores,analysis_gaps}.parquet`; arguments, result and errors as `collect` has them.

    A run that is not trained is a gap of `collect`'s table and no row here; one that is trained but not analysed, or
    whose maps are not finite, is a row of `analysis_gaps`.
    """
    attention, scores, gaps = [], [], []
    for folder, analysed in runs.items():
        if not (folder / "record.json").is_file():
            continue
        paths, reason = (analysed / "attention.parquet", analysed / "scores.parquet"), reasons.get(str(analysed))
        if reason is not None or not all(path.is_file() for path in paths):
            gaps.append(_gap(_identity(folder), "analyse", _undone("analysed", reason)))
            continue
        attention.append(schema.read_table(paths[0], ATTENTION).assign(run=folder.name))
        scores.append(schema.read_table(paths[1], SCORES).assign(run=folder.name))
        if why := reason_of(paths[0]):  # then both have no rows
            gaps.append(_gap(_identity(folder), "analyse", why))
    _write(attention, ATTENTION, out, "attention")
    _write(scores, SCORES, out, "scores")
    _write([pd.DataFrame(gaps)], schema.GAPS, out, "analysis_gaps")
    return [f"{each['run']}: {each['reason']}" for each in gaps]


def collect_costs(files: Sequence[Path], out: Path) -> None:
    """Write `<out>/{costs,cost_differences}.parquet` from the measurements of a model each, named without `.parquet`.

    Those that are not there are passed over. Raises `UserError` for a file that is broken.
    """
    for name, tail, columns in (("costs", "", COSTS), ("cost_differences", "-differences", DIFFERENCES)):
        paths = [path for file in files if (path := file.with_name(f"{file.name}{tail}.parquet")).is_file()]
        _write([schema.read_table(path, columns) for path in paths], columns, out, name)


def thin(curve: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """A training curve of at most `most` rows: itself if it is short, else means over equal runs of steps.

    Step, tokens and seconds are those at the end of a bin; a bin with a loss that is not finite keeps that.
    """
    width = math.ceil(len(curve) / most)
    if width <= 1:
        return curve.assign(steps_averaged=1)
    bins = curve.groupby(np.arange(len(curve)) // width)
    last = bins[["step", "tokens", "seconds", "peak_memory_bytes"]].last()
    # Series.mean of pandas leaves NaN out, which would hide a divergence.
    mean = bins[["loss", "learning_rate", "grad_norm", "tokens_per_second", "data_seconds", "mfu"]].mean(skipna=False)
    return last.join(mean).join(bins["heldout_loss"].mean()).assign(steps_averaged=bins.size())


# ---- one run --------------------------------------------------------------------------------------------------------
def _identity(folder: Path) -> Row:
    """Who the run is, by the name of its folder, and what its spec says of it, where there is one."""
    if (match := _RUN_NAME.fullmatch(folder.name)) is None:
        raise ValueError(f"{folder}: not the folder of a run")
    run = {"run": folder.name, **match.groupdict(default=""), "seed": int(match["seed"]), "status": "missing"}
    if (folder / "spec.json").is_file():
        spec = read_json(folder / "spec.json")
        tokens = spec["tokens"]["id"]
        manifest = folder.parent.parent / "tokens" / tokens / "manifest.json"
        run |= {
            "layers": spec["model"]["num_hidden_layers"],
            "max_position_embeddings": spec["model"].get("max_position_embeddings"),
            "qk_norm": spec["model"].get("qk_norm"),
            "context_length": read_json(manifest)["context_length"] if manifest.is_file() else None,
            "data": tokens,
            "code": spec["code"],
            **sweep.settings_of(spec["training"]),
        }
    return run


def _of_training(folder: Path, evaluated: Path, curve: pd.DataFrame) -> Row:
    """What the record and the curve of a run say; `packages` are those of its training and its evaluation."""
    done, record = read_json(folder / "record.json"), evaluated / "record.json"
    versions = [done["versions"], read_json(record)["versions"] if record.is_file() else {}]
    finite = np.isfinite(curve["loss"].tail(1)).all()
    found = {
        "status": "finished" if finite and done["status"] == "finished" else "diverged",
        "parameters": done["parameters"],
        "data_sha256": done["tokens_manifest_sha256"],
        "gpu_hours": amount(done.get("seconds")) * int(amount(done.get("processes")) or 1) / 3600,
        "packages": ", ".join(sorted({f"{name} {number}" for own in versions for name, number in own.items()})),
    }
    if curve.empty:
        return found
    # Time of an update is its tokens over their rate; checkpoints and held-out losses are not in it.
    seconds = (curve["tokens"].diff().fillna(curve["tokens"]) / curve["tokens_per_second"]).sum()
    return found | {
        "tokens": curve["tokens"].iloc[-1],
        "steps": curve["step"].iloc[-1],
        # One batch's loss is noise: the mean over the last hundredth of the steps, ten at least, is reported.
        "final_train_loss": curve["loss"].tail(max(10, len(curve) // 100)).mean(skipna=False),
        "final_heldout_loss": next(iter(curve["heldout_loss"].dropna().tail(1)), None),
        "tokens_per_second": curve["tokens"].iloc[-1] / seconds,
        "mfu": curve["mfu"].mean(),
        "data_share": curve["data_seconds"].sum() / seconds,
        "peak_memory_bytes": curve["peak_memory_bytes"].max(),
    }


def _undone(done: str, reason: str | None) -> str:
    """`not trained yet`, or why its last attempt failed."""
    return f"not {done} yet" if reason in (None, NOT_RUN) else f"not {done}: {reason}"


def _gap(run: Row, stage: str, reason: str) -> Row:
    return {**{name: run[name] for name in _IDENTITY}, "stage": stage, "reason": reason}


def _write(frames: list[pd.DataFrame], columns: pa.Schema, out: Path, name: str) -> None:
    # An empty frame has columns of no type, which would make those of the others floats.
    filled = [frame for frame in frames if not frame.empty]
    stacked = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    schema.write_table(stacked, columns, Path(out) / f"{name}.parquet")
