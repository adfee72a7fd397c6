"""Invented but plausible run folders in the real schemas, for tests of what reads them. No number here was measured."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.evaluation.schema import EVALUATION
from deconattn.files import sha256_file
from deconattn.report.collect import collect
from deconattn.report.schema import SAMPLES, write_table

SIMPLE = ("mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
NINE_LAYOUTS = ("even", "odd", "top", "middle", "bottom", "quarter", "first", "last", "bilateral")
ITEMS = {
    "arc_easy": 2376, "boolq": 3270, "copa": 100, "piqa": 1838, "sciq": 1000, "rte": 277, "hellaswag": 10042,
    "lambada_openai": 5153, "wikitext": 62, "heldout": 40,
}  # fmt: skip
GUESS = {"arc_easy": 0.25, "boolq": 0.5, "copa": 0.5, "piqa": 0.5, "sciq": 0.25, "rte": 0.5, "hellaswag": 0.25}
ABOVE_STANDARD = {
    "standard": 0.0, "mlp": 0.7, "approximate": 0.1, "nonapproximate": 0.2, "rndembqk": 0.28, "fixedseqqk": 0.26,
    "staticembqk": 0.22,
}  # fmt: skip
SHARE_REPLACED = {"uniform": 1.0, "even": 0.12, "first": 0.6, "last": 0.7, "bilateral": 0.5, "quarter": 0.25}
ABOVE_FULL = {"full": 0.0, "skip": 5.5, "skip_mixer": 2.5, "reweighted": 0.08}
DEMO_TASKS = ("arc_easy", "boolq", "copa", "piqa", "sciq", "rte", "hellaswag", "heldout")
ALL_TASKS = (*DEMO_TASKS, "wikitext", "lambada_openai")


@dataclass(frozen=True)
class Size:
    """A model size and how well it does: `loss` in nats a token at the end, `skill` above chance from 0 to 1."""

    name: str
    parameters: int
    tokens: int
    context_length: int
    steps: int
    loss: float
    skill: float
    tasks: Sequence[str]
    lengths: Sequence[int] = ()
    layers: int = 4


_LENGTHS = (128, 256, 512, 1024, 2048)
NANO = Size("nano", 412_160, 2_560_000, 128, 2500, 3.31, 0.02, DEMO_TASKS)
PAPER_SIZES = (
    Size("70m", 76_700_000, 15_000_000_000, 2048, 4000, 3.45, 0.25, ALL_TASKS, _LENGTHS, 6),
    Size("160m", 195_000_000, 15_000_000_000, 2048, 4000, 3.1, 0.35, ALL_TASKS, _LENGTHS, 12),
    Size("500m", 481_000_000, 15_000_000_000, 2048, 4000, 2.8, 0.5, ALL_TASKS, _LENGTHS, 24),
)


def make_runs(
    root: Path,
    size: Size = NANO,
    variants: Sequence[str] = SIMPLE,
    layouts: Sequence[str] = ("uniform", "even"),
    seeds: Sequence[int] = (0,),
    missing: Collection[tuple[str, str]] = (),
    diverged: Collection[tuple[str, str]] = (),
    unevaluated: Collection[tuple[str, str]] = (),
) -> list[Path]:
    """Write the runs of standard and `variants` × `layouts` × `seeds` below `root`/runs; returns all their folders.

    (variant, layout) pairs in `missing` get no folder, those in `diverged` a loss that ends in NaN and no
    evaluation, those in `unevaluated` no evaluation. The tokens' manifest is written beside, at `root`/tokens.
    """
    manifest = root / "tokens" / f"invented-{size.context_length}" / "manifest.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"id": manifest.parent.name, "context_length": size.context_length}))
    folders = []
    pairs = [("standard", "uniform"), *((v, layout) for layout in layouts for v in variants)]
    for variant, layout in pairs:
        for seed in seeds:
            name = f"{size.name}-{variant}-{layout}-s{seed}"
            folder = root / "runs" / f"{name}-{zlib.crc32(name.encode()):08x}"
            folders.append(folder)
            if (variant, layout) not in missing:
                failed = (variant, layout) in diverged
                _make_run(folder, size, variant, layout, seed, failed)
                if not failed and (variant, layout) not in unevaluated:
                    _evaluate(folder, size, variant, layout, seed)
    return folders


def pairs(folders: Sequence[Path]) -> dict[Path, Path]:
    """Run → evaluation or analysis, as `collect` takes them: invented ones lie in the run's folder."""
    return {folder: folder for folder in folders}


def report(root: Path, folders: Sequence[Path]) -> Path:
    """The tables that are collected from these runs, below `root`."""
    tables = root / "report" / "tables"
    collect(pairs(folders), tables, [make_baselines(root / "baselines.parquet")])
    return tables


def make_baselines(path: Path) -> Path:
    """Random guess and majority class of the NLU tasks."""
    rows = [
        {"baseline": name, "task": task, "metric": "acc", "value": guess + more, "items": ITEMS[task]}
        for name, more in (("random_guess", 0.0), ("majority", 0.03))
        for task, guess in GUESS.items()
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


def _random(*words: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


def _final_loss(size: Size, variant: str, layout: str, seed: int) -> float:
    noise = 0.012 * _random(size.name, variant, layout, seed).standard_normal()
    return size.loss + SHARE_REPLACED.get(layout, 0.2) * ABOVE_STANDARD.get(variant, 0.3) + noise


def _make_run(folder: Path, size: Size, variant: str, layout: str, seed: int, failed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    per_step = size.tokens // size.steps
    model = {"name": size.name, "variant": variant, "layout": layout, "num_hidden_layers": size.layers}
    spec = {
        "run": folder.name,
        "hash": folder.name[-8:],
        "model": {**model, "max_position_embeddings": size.context_length},
        "seed": seed,
        "training": {
            "steps": size.steps,
            "sequences_per_step": per_step // size.context_length,
            "peak_learning_rate": 4e-3,
        },
        "tokens": {"id": f"invented-{size.context_length}"},
        "code": "00000000",
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    manifest = folder.parent.parent / "tokens" / f"invented-{size.context_length}" / "manifest.json"
    record = {
        "status": "diverged" if failed else "finished",
        "parameters": size.parameters,
        "tokens_manifest_sha256": sha256_file(manifest),
        "versions": {"torch": "2.13.0"},
    }
    (folder / "record.json").write_text(json.dumps(record))
    steps = size.steps // 3 if failed else size.steps
    step = np.arange(1, steps + 1)
    end = _final_loss(size, variant, layout, seed)
    random = _random("curve", folder.name)
    loss = end + (math.log(1024) - end) * (1 + step / 20) ** -0.75 + 0.09 * random.standard_normal(steps)
    if failed:
        loss[-1] = np.nan
    heldout = np.where(step % max(1, size.steps // 10) == 0, loss + 0.02, np.nan)
    pd.DataFrame(
        {
            "step": step,
            "loss": loss,
            "learning_rate": 4e-3,
            "grad_norm": 0.5,
            "tokens": step * per_step,
            "tokens_per_second": 30_000.0,
            "seconds": step * per_step / 30_000.0,
            "data_seconds": 0.001,
            "mfu": 0.4,
            "peak_memory_bytes": 2 * 10**9,
            "heldout_loss": pd.array(heldout, dtype="Float64"),
        }
    ).to_parquet(folder / "train.parquet")


def _evaluate(folder: Path, size: Size, variant: str, layout: str, seed: int) -> None:
    rows, samples = [], []
    modes = ["full", *(["skip", "skip_mixer"] if layout != "uniform" else [])]
    modes += ["reweighted"] if variant == "softplus" else []
    if variant in ("rndembqk", "fixedseqqk"):
        size = replace(size, lengths=[length for length in size.lengths if length <= size.context_length])
    for mode in modes:
        loss = _final_loss(size, variant, layout, seed) + ABOVE_FULL[mode]
        skill = size.skill * math.exp(-1.5 * (loss - size.loss))
        for task in size.tasks:
            rows += [
                {**row, "mode": mode, "task": task, "items": ITEMS[task]}
                for row in _values(size, task, loss, skill, _random(folder.name, mode, task))
            ]
            lengths = size.lengths if task == "wikitext" and size.lengths else (size.context_length,)
            samples += [_items(folder.name, task, mode, at, loss, skill) for at in lengths]
    frame = pd.DataFrame(rows).assign(run=folder.name, model=size.name, variant=variant, layout=layout, seed=seed)
    frame["limit"] = pd.array([None] * len(frame), dtype="Int64")
    table = pa.Table.from_pandas(frame, preserve_index=False).select(EVALUATION.names)
    pq.write_table(table, folder / "evaluation.parquet")
    write_table(pd.concat(samples).assign(run=folder.name), SAMPLES, folder / "samples.parquet")


def _items(run: str, task: str, mode: str, length: int, loss: float, skill: float) -> pd.DataFrame:
    """Up to 60 items of a task: documents of unequal length and hardness, the same for all runs."""
    count, items, random = min(60, ITEMS[task]), _random("items", task), _random(run, task, mode, length)
    words = 200 + (300 * items.random(count)).astype(int)
    hardness = 1.3 * loss + 0.3 * items.standard_normal(count) + 0.02 * random.standard_normal(count)
    numbers = np.arange(count)
    frame = pd.DataFrame({"mode": mode, "task": task, "context_length": length, "item": numbers, "words": words})
    frame["document"] = [f"{task}{number}" for number in numbers]
    frame["nll"] = words * hardness
    if task in GUESS:
        luck = 0.7 * items.random(count) + 0.3 * random.random(count)
        frame["correct"] = (luck < GUESS[task] + skill * 0.5).astype(float)
    return frame


def _values(size: Size, task: str, loss: float, skill: float, random: np.random.Generator) -> list[dict[str, object]]:
    length = size.context_length
    if task in GUESS:
        truth = GUESS[task] + skill * (1 - GUESS[task]) * (0.2 if task in ("rte", "boolq", "hellaswag") else 0.7)
        error = math.sqrt(truth * (1 - truth) / ITEMS[task])
        value = truth + error * random.standard_normal()
        return [{"metric": "acc", "context_length": length, "value": value, "stderr": error}]
    if task == "lambada_openai":
        words = {"metric": "perplexity", "value": math.exp(1.75 * loss), "stderr": math.exp(loss)}
        accuracy = {"metric": "acc", "value": skill * 0.45, "stderr": 0.006}
        return [{**row, "context_length": length} for row in (words, accuracy)]
    out: list[dict[str, object]] = []
    for at in size.lengths if task == "wikitext" and size.lengths else (length,):
        nats = loss + 0.15 * abs(math.log2(length / at))
        values = {"word_perplexity": math.exp(1.3 * nats), "bits_per_byte": nats / 2.77}
        out += [{"metric": m, "context_length": at, "value": value, "stderr": None} for m, value in values.items()]
    return out
