"""Learning rate and optimiser (method.md, Training)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def learning_rate(step: int, peak: float, warmup_steps: int, steps: int) -> float:
    """Learning rate of update `step` (0-based): linear warm-up to `peak`, then half a cosine that would reach zero at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


class AdamW(torch.optim.AdamW):
    """PyTorch's, without the decorators that keep its methods from being compiled, as nothing here compiles them.

    They import torch._dynamo, with which each training would begin: two seconds, a fifth of a nano model's.
    """

    add_param_group = Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    zero_grad = Optimizer.zero_grad.__wrapped__  # type: ignore[attr-defined]
    step = torch.no_grad()(torch.optim.AdamW.step.__wrapped__)  # type: ignore[attr-defined]


def make_optimizer(model: nn.Module, training: dict[str, Any]) -> AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": training["weight_decay"]},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    beta1, beta2 = training["betas"]
    rate, eps = training["peak_learning_rate"], training["eps"]
    return AdamW(groups, lr=rate, betas=(beta1, beta2), eps=eps, fused=True)
