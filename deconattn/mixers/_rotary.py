"""Rotary position embedding (RoPE; Su et al., 2021), in the half-split form of Qwen2."""

from __future__ import annotations

import torch
from torch import Tensor


class Rotary:
    """Tables of cos and sin for positions 0 … L-1, made once a (length, device) and kept.

    A plain object, not a buffer: nothing of it belongs into a checkpoint, and a model that is built on the meta
    device (as transformers does when it loads) would lose a buffer that no file restores.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self._tables: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def tables(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each (length, head_dim), at least float32 whatever the dtype of `like`."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (length, like.device, dtype)
        if key not in self._tables:
            exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim
            frequency = 1.0 / self.theta**exponent
            if (
                dtype == torch.float32
            ):  # as Qwen2 does: frequencies and angles in float32, so that logits agree to the last bits
                frequency = (1.0 / self.theta ** exponent.float()).float()
            angle = torch.outer(torch.arange(length, dtype=frequency.dtype), frequency)
            angle = torch.cat([angle, angle], dim=-1)
            self._tables[key] = (
                angle.cos().to(device=like.device, dtype=dtype),
                angle.sin().to(device=like.device, dtype=dtype),
            )
        return self._tables[key]


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (B, heads, L, head_dim) by its position; the result has x's dtype."""
    cos, sin = tables
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return (x * cos + turned * sin).to(x.dtype)
