"""AdamW as PyTorch has it, and what a training imports for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from deconattn.training.optimizer import make_optimizer

SETTINGS = {"weight_decay": 0.1, "betas": [0.9, 0.99], "peak_learning_rate": 1e-2, "eps": 1e-8}
TRAINS = """
import sys, torch
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.training.optimizer import make_optimizer
from deconattn.training.parallel import Loss

model = LanguageModel(ModelConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2))
initialise(model, 0)
optimizer = make_optimizer(model, {settings})
Loss(model, "float32")(torch.zeros(2, 5, dtype=torch.long)).backward()
optimizer.step()
optimizer.zero_grad(set_to_none=True)
assert "torch._dynamo" not in sys.modules
"""


def test_its_updates_are_those_of_pytorchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimizer(ours, SETTINGS)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    other = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    for _ in range(5):
        x = torch.randn(4, 5)
        for model, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad(set_to_none=True)
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_an_update_imports_no_compiler() -> None:
    subprocess.run([sys.executable, "-c", TRAINS.replace("{settings}", repr(SETTINGS))], check=True)
