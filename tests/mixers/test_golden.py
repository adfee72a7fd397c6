"""One training step of every variant, to numbers that are committed: `python -m tests.mixers.test_golden` writes them anew.

Initialisation from a seed, loss, gradient norm, clipping, AdamW, the loss of the same batch after it: in float32. The
tolerance is 1e-5 relative, a hundred times what another order of summation does and a hundredth of what a lost bias does.
A variant with no line in the file is held to the reference in float64 instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.training.optimizer import make_optimizer
from tests.mixers.cases import VARIANTS, config_of, each_variant, reference, reference_gradients, tokens
from tests.reference import naive

FILE = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-5
TRAINING = {"peak_learning_rate": 4e-3, "weight_decay": 0.1, "betas": (0.9, 0.9999), "eps": 1e-8}


def model_of(variant: str) -> LanguageModel:
    """In layout even, with grouped queries; weights large enough that attention has a say."""
    model = LanguageModel(ModelConfig(**config_of(variant, "even", "grouped", initializer_range=0.2)))
    initialise(model, seed=0)
    if model.model.side_stream == "text":
        model.model.side_input_ids.copy_(tokens(1, len(model.model.side_input_ids), seed=1)[0])
    return model


def train_step(
    model: LanguageModel, loss: Callable[[Tensor], Tensor], gradients: Callable[[Tensor], dict[str, Tensor]]
) -> dict[str, float]:
    """Loss and gradient norm of a fixed batch, and its loss after one update."""
    ids, optimizer = tokens(4, 33, seed=2), make_optimizer(model, TRAINING)
    found = {"loss": loss(ids).item()}
    for name, gradient in gradients(ids).items():
        model.get_parameter(name).grad = gradient.contiguous()  # the fused update takes its strides for the weight's
    found["gradient_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    optimizer.step()
    return {**found, "loss_after": loss(ids).item()}


def ours(variant: str) -> dict[str, float]:
    """The package's numbers, in float32."""
    model = model_of(variant).train()

    def gradients(ids: Tensor) -> dict[str, Tensor]:
        names, parameters = zip(*model.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(model.loss(ids), parameters), strict=True))

    return train_step(model, model.loss, gradients)


def theirs(variant: str) -> dict[str, float]:
    """The reference's, in float64."""
    config, model = config_of(variant, "even", "grouped"), model_of(variant).double()
    state = model.state_dict()  # views of the weights, which the update moves
    return train_step(
        model,
        lambda ids: naive.next_token_loss(reference(config, state, ids).logits, ids),
        lambda ids: reference_gradients(config, state, ids),
    )


@each_variant
def test_a_train_step_gives_the_numbers_on_record(variant: str) -> None:
    found, record = ours(variant), json.loads(FILE.read_text())
    assert found == pytest.approx(record.get(variant) or theirs(variant), rel=TOLERANCE)


@each_variant
def test_the_numbers_on_record_are_the_references(variant: str) -> None:
    """So that nobody regenerates them into something wrong."""
    record = json.loads(FILE.read_text())
    assert set(naive.VARIANTS) <= set(record) <= set(VARIANTS)
    assert record.get(variant) is None or record[variant] == pytest.approx(theirs(variant), rel=TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = [f"  {json.dumps(variant)}: {json.dumps(ours(variant))}" for variant in VARIANTS]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
