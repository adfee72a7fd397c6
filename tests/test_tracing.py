"""Who traces or builds a model with stand-ins for tensors leaves nothing of them behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deconattn.mixers import _rotary
from deconattn.model import LanguageModel, ModelConfig, initialise

CONFIG = ModelConfig(vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)


@pytest.fixture(autouse=True)
def no_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process in which nothing ran before."""
    monkeypatch.setattr(_rotary, "_TABLES", {})
    yield


def model() -> LanguageModel:
    made = LanguageModel(CONFIG).eval()
    initialise(made, 0)
    return made


@torch.no_grad()
def test_an_exported_model_and_the_model_itself_afterwards_agree() -> None:
    mine, ids = model(), torch.arange(14).view(2, 7)
    exported = torch.export.export(mine, (ids,))
    after = mine(ids)
    assert type(after) is torch.Tensor and not after.isnan().any()
    torch.testing.assert_close(exported.module()(ids), after)


@torch.no_grad()
def test_tables_of_stand_ins_serve_no_one_else() -> None:
    ids = torch.arange(14).view(2, 7)
    with FakeTensorMode(allow_non_fake_inputs=True):
        LanguageModel(CONFIG)(torch.zeros(2, 7, dtype=torch.long))
    assert not _rotary._TABLES
    assert torch.equal(model()(ids), model()(ids))


@torch.no_grad()
def test_a_default_device_is_not_that_of_the_tables() -> None:
    mine, ids = model(), torch.arange(14).view(2, 7)
    with torch.device("meta"):
        logits = mine(ids)
    assert logits.device.type == "cpu"
    assert torch.equal(logits, mine(ids))
