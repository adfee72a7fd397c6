"""RoPE's tables follow the model, second derivatives are refused, and the head's loss is that of all logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.layers import LOGITS_AT_ONCE, Rotary, head_loss, rotate
from deconattn.mixers.approximate import block_weights
from deconattn.mixers.blocks import block_attention
from deconattn.mixers.nonapproximate import RunningMean
from tests.reference import naive

CONFIG = ModelConfig(vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
IDS = torch.arange(14).view(2, 7)


def model() -> LanguageModel:
    made = LanguageModel(CONFIG).eval()
    initialise(made, 0)
    return made


@torch.no_grad()
def test_an_exported_model_and_the_model_itself_afterwards_agree() -> None:
    mine = model()
    exported = torch.export.export(mine, (IDS,))
    after = mine(IDS)
    assert type(after) is torch.Tensor and not after.isnan().any()
    torch.testing.assert_close(exported.module()(IDS), after)


@torch.no_grad()
def test_tables_of_stand_ins_or_a_default_device_serve_no_one_else() -> None:
    mine = model()
    expected = mine(IDS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        LanguageModel(CONFIG)(torch.zeros(2, 7, dtype=torch.long))
    with torch.device("meta"):
        assert torch.equal(mine(IDS), expected)
    assert torch.equal(model()(IDS), expected)


def test_tables_are_made_with_the_model_and_follow_it() -> None:
    """A cast leaves them exact; text beyond the model's positions makes longer ones."""
    mine = model()
    ropes = [block.self_attn.rope for block in mine.model.blocks()]
    assert all(len(rope.cos) == CONFIG.max_position_embeddings for rope in ropes)
    assert not [name for name in mine.state_dict() if "rope" in name]
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        mine.to(dtype)
        fresh = Rotary(8, CONFIG.rope_theta, 2048)
        fresh.to(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert all(rope.cos.dtype == wide and torch.equal(rope.cos, fresh.cos) for rope in ropes)
    rope, x = Rotary(8, 100.0, 4), torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        rotate(x, *rope.tables(7, x)).double(), naive.rotate(x.double(), 100.0), rtol=0, atol=1e-6
    )


def tensor(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "blocks": lambda x: block_attention(x[:, None], x[:, None], x[:, None], block_weights),
    "running mean": lambda x: RunningMean.apply(x[:, None], x[:, None], x[:, None]),
    "head": lambda x: head_loss(x.flatten(0, 1), tensor(9, 8), torch.zeros(6, dtype=torch.long), "sum"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_second_derivative_is_refused(name: str) -> None:
    """They are not written; a wrong one must not come out."""
    x = tensor(2, 3, 8)
    (first,) = torch.autograd.grad(OWN[name](x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chunk", [16, 1000])
def test_the_head_is_the_cross_entropy_of_all_logits(
    reduction: Literal["mean", "sum"], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and both gradients, in chunks and at once, against the float64 logits that it never holds; scaled from outside too."""
    monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", chunk * 300)
    draw = torch.Generator().manual_seed(0)
    leaves = [(0.7 * torch.randn(n, 16, generator=draw)).requires_grad_() for n in (61, 300)]
    targets = torch.randint(0, 300, (61,), generator=draw)

    wide = [x.detach().double().requires_grad_() for x in leaves]
    expected = torch.nn.functional.cross_entropy(wide[0] @ wide[1].T, targets, reduction=reduction)
    truth = [expected, *torch.autograd.grad(7.0 * expected, wide)]
    for precision, budget in ((torch.float32, 2e-6), (torch.bfloat16, 8e-3)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = head_loss(leaves[0], leaves[1], targets, reduction)
        torch.autograd.grad(loss, leaves, retain_graph=True)  # a first time, which leaves no trace
        for found, true in zip([loss, *torch.autograd.grad(7.0 * loss, leaves)], truth, strict=True):
            assert found.dtype == torch.float32
            assert (found.double() - true).norm() <= budget * true.norm()
    with torch.no_grad():
        assert torch.equal(head_loss(*leaves, targets, reduction), head_loss(*leaves, targets, reduction))


def test_the_head_of_bf16_weights_sums_its_gradient_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of very different frequency: the sum of a common one is rounded once, and not with each chunk."""
    monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", 64 * 1000)
    draw = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(4096, 64, generator=draw), torch.randn(1000, 64, generator=draw) * 0.05
    targets = (torch.rand(4096, generator=draw) ** 6 * 1000).long()
    ours = [x.bfloat16().requires_grad_() for x in (hidden, weight)]
    truths = [x.detach().double().requires_grad_() for x in ours]
    loss = head_loss(ours[0], ours[1], targets, "mean")
    expected = torch.nn.functional.cross_entropy(truths[0] @ truths[1].t(), targets)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    for mine, truth in zip(ours, truths, strict=True):
        assert mine.grad is not None and truth.grad is not None and mine.grad.dtype == torch.bfloat16
        assert (mine.grad.double() - truth.grad).norm() < 3e-3 * truth.grad.norm()
