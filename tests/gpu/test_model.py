"""Loss, gradients and decoding of every variant on a GPU, against float64 on the CPU."""

from __future__ import annotations

import pytest
import torch

from deconattn.config import ModelConfig
from deconattn.training.parallel import Loss
from tests.mixers.cases import assert_near, build, config_of, each_variant, joined, reference_gradients, tokens, wrapped

# Relative RMS of the gradient as one vector. A GPU sums in other orders than a CPU; in bf16 each of three layers has its error.
BUDGETS = {"float32": 1e-5, "bf16": 2.4e-2}
LOSS = {"float32": 1e-6, "bf16": 2e-3}
WIDE = {"hidden_size": 64}  # heads of 16, the smallest that flex_attention takes


@pytest.mark.parametrize("precision", BUDGETS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@each_variant
def test_loss_and_gradients_are_those_of_float64(
    variant: str, compiled: bool, precision: str, device: torch.device
) -> None:
    config, ids = config_of(variant, "even", "grouped", **WIDE), tokens(3, 257)
    model, state = build(config, dtype=torch.float32)
    held = {name: x.float().double() if x.is_floating_point() else x for name, x in state.items()}
    truth = build(config)[0]
    truth.load_state_dict(held, strict=False)
    torch.compiler.reset()
    loss = Loss(model.to(device).train(), precision)
    if compiled:
        loss.compile_parts(len(ids))
    found = loss(ids.to(device)) / ids[:, 1:].numel()
    found.backward()
    assert found.item() == pytest.approx(truth.loss(ids).item(), rel=LOSS[precision])
    expected = reference_gradients(config, held, ids)
    gradient = joined(model.get_parameter(name).grad.cpu() for name in expected)
    assert_near(gradient, joined(expected.values()), BUDGETS[precision], "gradient:")


@pytest.mark.parametrize("precision", BUDGETS)
@each_variant
@torch.no_grad()
def test_decoding_is_one_forward(variant: str, precision: str, device: torch.device) -> None:
    """A prompt and forty tokens, one at a time."""
    config, ids = config_of(variant, "even", "grouped", **WIDE), tokens(2, 100)
    expected, model = build(config)[0](ids), build(config, dtype=torch.float32)[0].to(device).eval()
    decoding = model.model.new_state()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        parts = [ids[:, :60], *ids[:, 60:].split(1, dim=1)]
        logits = [model.lm_head(model.model(part.to(device), None, decoding)) for part in parts]
    assert_near(torch.cat(logits, dim=1).cpu(), expected, BUDGETS[precision], "logits:")


@each_variant
@torch.no_grad()
def test_it_generates_what_the_cpu_does(variant: str, device: torch.device) -> None:
    model, prompt = wrapped(config_of(variant, "even", "grouped", **WIDE)), tokens(2, 30)
    options = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0}
    expected, text = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options), prompt.to(device)
    found = model.to(device).generate(text, attention_mask=torch.ones_like(text), **options)
    assert torch.equal(found.cpu(), expected)


def test_flex_attention_is_used_where_it_can_be(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it `approximate` would be right and slow."""
    from deconattn.mixers import approximate

    used = []
    fused = approximate.fused
    monkeypatch.setattr(approximate, "fused", lambda *inputs: used.append(1) or fused(*inputs))
    mixer = approximate.Approximate(ModelConfig(**config_of("approximate", **WIDE))).to(device)
    x = torch.randn(1, 40, 64, device=device)
    mixer(x, x)
    assert bool(used) == (device.type == "cuda")
