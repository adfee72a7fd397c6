"""What runs cost: of a model counted by hand, and the states that decoding holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from deconattn import mixers
from deconattn.analysis.run_costs import write_run_costs
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel

LENGTH, STEPS, BATCH = 100, 7, 4
SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip


def costs_of(folder: Path, variant: str, layout: str) -> tuple[ModelConfig, pd.Series]:
    config = ModelConfig(**SHAPE, variant=variant, layout=layout)
    run = folder / f"tiny-{variant}-{layout}-s3-0123abcd"
    (run / "model").mkdir(parents=True)
    (run / "model/config.json").write_text(json.dumps(config.to_dict()))
    model = {"name": "tiny", "variant": variant, "layout": layout}
    training = {"steps": STEPS, "sequences_per_step": BATCH}
    (run / "spec.json").write_text(json.dumps({"run": "another", "model": model, "seed": 3, "training": training}))
    write_run_costs([run], {model["name"]: LENGTH, "another": 7}, folder / "run_costs.parquet")
    return config, pd.read_parquet(folder / "run_costs.parquet").iloc[0]


def test_the_training_of_a_standard_model_counted_by_hand(tmp_path: Path) -> None:
    """Per layer: q, k, v, o; scores and sums over the pairs j ≤ i; three matrices of the feed-forward. Then the head."""
    _, row = costs_of(tmp_path, "standard", "uniform")
    d, inner, layers, vocabulary = 32, 48, 3, 97
    a_layer = 4 * 2 * LENGTH * d * d + 2 * 2 * (LENGTH * (LENGTH + 1) // 2) * d + 3 * 2 * LENGTH * d * inner
    forward = layers * a_layer + 2 * LENGTH * d * vocabulary
    assert row["training_flops"] == 3 * forward * BATCH * STEPS
    assert row["state_bytes"] == layers * 2 * 128 * d * 2, "keys and values of two pages of 64, 2 bytes a number"
    assert list(row[["run", "model", "seed", "context_length"]]) == [
        "tiny-standard-uniform-s3-0123abcd",
        "tiny",
        3,
        LENGTH,
    ]


@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("variant", mixers.names())
@torch.no_grad()
def test_states_are_those_that_decoding_holds(variant: str, layout: str, tmp_path: Path) -> None:
    config, row = costs_of(tmp_path, variant, layout)
    model = LanguageModel(config).bfloat16().eval()
    state = model.model.new_state()
    model.model(torch.zeros(1, LENGTH, dtype=torch.long), state=state)
    assert row["state_bytes"] == state.nbytes()
