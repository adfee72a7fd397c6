"""What functions with a backward of their own owe beyond values: sums in enough precision, no second derivative, empty rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn import mixers
from deconattn.functions import gated_mlp, rms_norm, rotate_halves
from deconattn.head import head_loss
from deconattn.mixers._blocks import block_attention, whole_attention
from deconattn.mixers.nonapproximate import RunningMean
from deconattn.model import LanguageModel, ModelConfig, initialise
from deconattn.products import _Linear


def apart(found: Tensor | None, truth: Tensor | None) -> float:
    assert found is not None and truth is not None
    return float((found.double() - truth).norm() / truth.norm())


def test_the_head_of_bf16_weights_sums_its_gradient_in_float32() -> None:
    """Tokens of very different frequency: the sum of a common one is rounded once, and not with each of its places."""
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(4096, 64, generator=generator), torch.randn(1000, 64, generator=generator) * 0.05
    targets = (torch.rand(4096, generator=generator) ** 6 * 1000).long()
    ours = [x.bfloat16().requires_grad_() for x in (hidden, weight)]
    truths = [x.detach().double().requires_grad_() for x in ours]
    head_loss(ours[0], ours[1], targets, "mean").backward()
    F.cross_entropy(truths[0] @ truths[1].t(), targets).backward()
    for mine, truth in zip(ours, truths, strict=True):
        assert mine.grad is not None and mine.grad.dtype == torch.bfloat16
        assert apart(mine.grad, truth.grad) < 3e-3


def test_the_gate_of_bf16_weights_sums_its_gradients_in_float32() -> None:
    """All steps pull alike, so that a sum in bf16 would stand still at 256 steps."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 8, generator=generator).expand(512 * 600, 8).bfloat16()
    weights = [torch.randn(*shape, generator=generator).bfloat16() for shape in ((4, 8), (4, 8), (8, 4))]
    ours = [w.clone().requires_grad_() for w in weights]
    truths = [w.double().requires_grad_() for w in weights]
    gated_mlp(x, *ours).sum().backward()
    gate, up, down = truths
    one = x[:1].double()
    (((F.silu(one @ gate.t()) * (one @ up.t())) @ down.t()).sum() * len(x)).backward()
    for mine, truth in zip(ours, truths, strict=True):
        assert apart(mine.grad, truth.grad) < 2e-2


def tensor(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: rms_norm(x, tensor(8), 1e-6),
    "gate": lambda x: gated_mlp(x, tensor(6, 8), tensor(6, 8), tensor(8, 6)),
    "rotation": lambda x: rotate_halves(x**2, tensor(4), tensor(4)),
    "product": lambda x: _Linear.apply((x**2).flatten(0, 1), tensor(5, 8), None),
    "block": lambda x: block_attention(x[:, None], x[:, None], x[:, None], "taylor"),
    "whole": lambda x: whole_attention(x[:, None], x[:, None], x[:, None]),
    "running mean": lambda x: RunningMean.apply(x[:, None], x[:, None], x[:, None]),
    "head": lambda x: head_loss(x.flatten(0, 1), tensor(9, 8), torch.zeros(6, dtype=torch.long), "sum"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_second_derivative_is_refused(name: str) -> None:
    """They are not written; a wrong one must not come out."""
    x = tensor(2, 3, 8)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(OWN[name](x).square().sum(), x, create_graph=True)


def test_a_whole_map_is_held_where_it_weighs_little() -> None:
    def held(length: int) -> int:
        found: dict[int, int] = {}

        def note(x: Tensor) -> Tensor:
            found[x.untyped_storage().data_ptr()] = x.nbytes
            return x

        q, k, v = (torch.randn(1, 1, length, 8).bfloat16().requires_grad_() for _ in range(3))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            whole_attention(q, k, v)
        return sum(found.values())

    assert held(128) == 2 * (3 * 128 * 8 + 128 * 128)
    assert held(129) == 2 * 3 * 129 * 8


@pytest.mark.parametrize("variant", mixers.names())
def test_a_batch_of_no_rows_has_logits_of_no_rows(variant: str) -> None:
    config = ModelConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, variant=variant
    )
    model = LanguageModel(config)
    initialise(model, 0)
    assert model(torch.zeros(0, 7, dtype=torch.long)).shape == (0, 7, 17)
