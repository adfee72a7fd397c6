"""What transformers may ask of the model beside what `tests/mixers` asks of every variant: ties, labels, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deconattn import DeconAttnConfig, DeconAttnForCausalLM
from deconattn.model import LanguageModel, ModelConfig, initialise

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "rope_theta": 500.0,
    "initializer_range": 0.2,
}


def trained(variant: str, layout: str, **fields: Any) -> LanguageModel:
    """A plain model with weights and biases that are all different from their defaults."""
    model = LanguageModel(ModelConfig(**SHAPE, variant=variant, layout=layout, **fields))
    initialise(model, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def as_transformers(model: LanguageModel) -> DeconAttnForCausalLM:
    wrapped = DeconAttnForCausalLM(DeconAttnConfig(**model.config.to_dict())).eval()
    wrapped.load_state_dict(model.state_dict())
    return wrapped


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(1))


def test_tied_embeddings_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    wrapped = as_transformers(trained("mlp", "even", tie_word_embeddings=True))
    wrapped.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 9)).logits, wrapped(tokens(2, 9)).logits)


def test_labels_give_the_mean_loss_of_what_is_not_ignored() -> None:
    model = as_transformers(trained("standard", "uniform"))
    rows = tokens(2, 12)
    labels = rows.clone()
    labels[0, :7] = -100
    with torch.no_grad():
        output = model(rows, labels=labels)
        expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)


def test_what_cannot_be_honoured_is_refused() -> None:
    model = as_transformers(trained("mlp", "uniform"))
    holes = torch.tensor([[1, 0, 1, 1]])
    with pytest.raises(ValueError, match="holes"):
        model(tokens(1, 4), attention_mask=holes)
    with pytest.raises(ValueError, match="inputs_embeds"):
        model(tokens(1, 4), inputs_embeds=torch.zeros(1, 4, 32))
    with pytest.raises(Exception, match="64 positions"):
        as_transformers(trained("rndembqk", "uniform"))(tokens(1, 65))


def test_auto_config_keeps_variant_and_layout(tmp_path: Path) -> None:
    DeconAttnConfig(**SHAPE, variant="approximate", layout="quarter", qk_norm=True).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.variant, config.layout, config.qk_norm, config.rope_theta) == ("approximate", "quarter", True, 500.0)
