"""The model as transformers sees it: saved and loaded, found by AutoModel, generating, padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

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
VARIANTS = ("standard", "mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
KINDS = [
    (variant, layout)
    for variant in VARIANTS
    for layout in ("uniform", "even")
    if (variant, layout) != ("standard", "even")
]


def trained(variant: str, layout: str, **fields: Any) -> LanguageModel:
    """A plain model with weights, biases and side streams that are all different from their defaults."""
    model = LanguageModel(ModelConfig(**SHAPE, variant=variant, layout=layout, **fields))
    initialise(model, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("side_input_ids"):
                buffer.copy_(torch.randint(0, 97, buffer.shape, generator=generator))
    return model


def as_transformers(model: LanguageModel) -> DeconAttnForCausalLM:
    wrapped = DeconAttnForCausalLM(DeconAttnConfig(**model.config.to_dict())).eval()
    wrapped.load_state_dict(model.state_dict())
    return wrapped


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("variant", "layout"), KINDS)
def test_saved_and_loaded_by_auto_model_it_is_the_same(variant: str, layout: str, tmp_path: Path) -> None:
    plain = trained(variant, layout)
    wrapped = as_transformers(plain)
    wrapped.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.bin")] == []
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, DeconAttnForCausalLM)
    assert {name: tensor.shape for name, tensor in loaded.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    with torch.no_grad():
        assert torch.equal(loaded(tokens(3, 40)).logits, plain(tokens(3, 40)))


def test_tied_embeddings_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    wrapped = as_transformers(trained("mlp", "even", tie_word_embeddings=True))
    wrapped.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 9)).logits, wrapped(tokens(2, 9)).logits)


@pytest.mark.parametrize(("variant", "layout"), KINDS)
def test_left_and_right_padding_change_nothing(variant: str, layout: str) -> None:
    model = as_transformers(trained(variant, layout)).double()
    rows = tokens(3, 30)
    lengths = (30, 17, 1)
    for side in ("left", "right"):
        padded, mask = torch.zeros_like(rows), torch.zeros_like(rows)
        for index, length in enumerate(lengths):
            span = slice(30 - length, 30) if side == "left" else slice(0, length)
            padded[index, span], mask[index, span] = rows[index, :length], 1
        with torch.no_grad():
            together = model(padded, attention_mask=mask).logits
            for index, length in enumerate(lengths):
                span = slice(30 - length, 30) if side == "left" else slice(0, length)
                alone = model(rows[index : index + 1, :length]).logits[0]
                torch.testing.assert_close(together[index, span], alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("variant", "layout"), [("standard", "uniform"), ("rndembqk", "even"), ("nonapproximate", "uniform")]
)
def test_generation_continues_each_row_as_it_would_alone(variant: str, layout: str) -> None:
    model = as_transformers(trained(variant, layout)).double()
    settings = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0)
    rows, mask = tokens(2, 10), torch.ones(2, 10, dtype=torch.long)
    mask[1, :4] = 0
    together = model.generate(rows, attention_mask=mask, generation_config=settings)
    for index, start in enumerate((0, 4)):
        text = rows[index : index + 1, start:]
        for _ in range(6):
            with torch.no_grad():
                text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], dim=1)
        assert together[index, start:].tolist() == text[0].tolist()
    beams = model.generate(rows, attention_mask=mask, generation_config=GenerationConfig(
        max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0))  # fmt: skip
    assert beams.shape[1] == 14


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
