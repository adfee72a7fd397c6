"""Learning rate and optimiser (SPEC §5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Learning rate of update `step` (0-based): linear warm-up to `peak`, then half a cosine that would reach zero at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, training: dict[str, Any]) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": training["weight_decay"]},
        {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=training["peak_learning_rate"],
        betas=(training["betas"][0], training["betas"][1]),
        eps=training["eps"],
        fused=True,
    )
