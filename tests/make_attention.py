"""Invented but plausible analysis tables of run folders, and a tiny model with held-out text to analyse in earnest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from deconattn.analysis.histogram import ScoreHistogram
from deconattn.analysis.schema import ATTENTION, SCORES, with_reason
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.files import sha256_file, write_json
from deconattn.training.checkpoint import weights_of

FIXED = ("rndembqk", "fixedseqqk")


def make_analysis(
    folders: Sequence[Path], skip: Collection[tuple[str, str]] = (), broken: Collection[tuple[str, str]] = ()
) -> None:
    """Write attention.parquet and scores.parquet of four layers into the run folders that have a spec.json.

    (variant, layout) pairs in `skip` get no files, those in `broken` tables without rows and with a reason.
    nonapproximate uniform has scores beyond 10³ in its last layers.
    """
    for folder in folders:
        if not (folder / "spec.json").is_file():
            continue
        spec = json.loads((folder / "spec.json").read_text())
        model = spec["model"]
        pair = variant, layout = model["variant"], model["layout"]
        if pair in skip:
            continue
        identity = {"run": folder.name, "model": model["name"], "variant": variant, "layout": layout}
        identity |= {"seed": spec["seed"], "context_length": int(spec["tokens"]["id"].rpartition("-")[2])}
        attention: list[dict[str, Any]] = []
        scores: list[dict[str, Any]] = []
        for layer in (1, 2, 3, 4) if pair not in broken else ():
            standard = variant == "standard" or (layout == "even" and layer % 2 == 0)
            kind = "standard" if standard else variant
            if kind == "mlp":
                continue
            place = {**identity, "layer": layer, "standard": standard, "sequences": 1 if kind in FIXED else 8}
            random = np.random.default_rng(zlib.crc32(f"{folder.name}/{layer}".encode()))
            depth = (layer - 1) / 3
            attention += [{**place, **row} for row in _indicators(kind, depth, random)]
            scores += [{**place, **row} for row in _scores(kind, depth, layout == "uniform", random)]
        reason = "a score of layer 3 is not finite" if pair in broken else None
        for rows, schema, name in ((attention, ATTENTION, "attention"), (scores, SCORES, "scores")):
            pq.write_table(pa.Table.from_pylist(rows, schema=with_reason(schema, reason)), folder / f"{name}.parquet")


def _indicators(kind: str, depth: float, random: np.random.Generator) -> list[dict[str, Any]]:
    softness = {"standard": 0.45, "approximate": 0.9, "nonapproximate": 0.6}.get(kind, 0.55)
    fixed = 0.4 if kind in FIXED else 1.0
    means = {
        "entropy": (4.2 * softness + 1.2 * (1 - depth), 0.2),
        "concentration": (6 * (1.3 - softness) + 2 * depth, 0.3),
        "sink": (0.08 + 0.45 * depth * (kind != "approximate"), 0.04),
        **{f"local_focus_{n}": ((0.3 - 0.2 * depth * fixed) / (1 + n), 0.03) for n in range(4)},
    }
    rows = [
        {"head": head, "indicator": name, "value": abs(mean + deviation * random.standard_normal())}
        for name, (mean, deviation) in means.items()
        for head in (1, 2)
    ]
    diversity = 0.002 + 0.006 * depth * (1 - 0.5 * (kind == "nonapproximate")) + 0.0004 * random.standard_normal()
    return [*rows, {"head": None, "indicator": "head_diversity", "value": float(abs(diversity))}]


def _scores(kind: str, depth: float, outliers: bool, random: np.random.Generator) -> list[dict[str, Any]]:
    values = random.standard_normal(20_000) * (0.6 + 1.6 * depth) - 0.8 * depth
    if kind == "nonapproximate":
        values = values**2 * 0.6
    if kind == "nonapproximate" and outliers and depth > 0.5:
        values[:300] = 10 ** random.uniform(2, 3 + 2 * depth, 300)
    histogram = ScoreHistogram()
    histogram.add(torch.from_numpy(values.astype(np.float32)))
    return histogram.rows()


def save_tiny_model(folder: Path, variant: str, layout: str, scale: float = 4.0) -> dict[str, Any]:
    """An untrained model of 4 layers, queries and keys enlarged so that its maps are not flat; returns its fields."""
    config = ModelConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.1, variant=variant, layout=layout,
    )  # fmt: skip
    model = LanguageModel(config)
    initialise(model, seed=3)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "q_proj" in key or "k_proj" in key:
                tensor.mul_(scale)
    if "side_input_ids" in dict(model.model.named_buffers()):
        model.model.side_input_ids.copy_(torch.arange(32) * 7 % 61)
    folder.mkdir(parents=True)
    save_file(weights_of(model), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return config.to_dict()


def write_heldout(folder: Path, documents: list[list[int]]) -> Path:
    """What a token table has of held-out documents, here of these tokens."""
    folder.mkdir()
    path, tokens = folder / "heldout.parquet", pa.array(documents, pa.list_(pa.uint16()))
    pq.write_table(pa.table({"text": ["…"] * len(documents), "tokens": tokens}), path)
    write_json(folder / "manifest.json", {"heldout": {"file": path.name, "sha256": sha256_file(path)}})
    return folder
