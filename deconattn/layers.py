"""Layers that every model shares: RMSNorm, rotary position embedding, SwiGLU, and the loss of the head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOGITS_AT_ONCE = {"cpu": 2**24, "cuda": 2**28}  # tokens × vocabulary whose logits are held together
ChunkLoss = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]


def widened(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.to(wide(x.dtype))


def wide(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.promote_types(dtype, torch.float32)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off for what follows, where it is on."""
    kind = device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · weight over the last dimension, in at least float32 (Zhang & Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) → (…, size), in the precision of x."""
        return F.rms_norm(widened(x), self.weight.shape, widened(self.weight), self.eps).to(x.dtype)


class Rotary(nn.Module):
    """Rotary position embedding (RoPE; Su et al., 2021), in the half-split form of Qwen2.

    The tables are made with the module: filled while code is traced, they would make torch.compile trace again. They are no
    buffers, since they belong in no checkpoint, stay in at least float32 when the model is cast, and could not be loaded into a
    model built on the meta device.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, theta: float, positions: int) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta
        self._fill(positions, torch.get_default_device(), torch.float32)

    def _fill(self, positions: int, device: torch.device, dtype: torch.dtype) -> None:
        made = torch.device("meta" if device.type == "meta" else "cpu")
        with torch.inference_mode(False):  # made while generating, they must still serve a later training
            # Angles in float32 where the model is, as in Qwen2, so that logits agree to the last bits.
            exponent = torch.arange(0, self.head_dim, 2, dtype=dtype, device=made) / self.head_dim
            angle = torch.outer(torch.arange(positions, dtype=dtype, device=made), 1.0 / self.theta**exponent)
            self.cos = angle.cos().repeat(1, 2).to(device)
            self.sin = torch.cat((-angle.sin(), angle.sin()), dim=1).to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        """Follow the module to another device, and to float64."""
        probe = fn(torch.empty(0, dtype=self.cos.dtype, device="cpu"))
        self._fill(len(self.cos), probe.device, wide(probe.dtype))
        return self

    def tables(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin of positions 0 … length − 1, each (length, head_dim), on the device of `like`; see `rotate`."""
        positions = len(self.cos) if length <= len(self.cos) else 2 * length
        if positions > len(self.cos) or self.cos.device != like.device or self.cos.dtype != wide(like.dtype):
            self._fill(positions, like.device, wide(like.dtype))
        return self.cos[:length], self.sin[:length]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, L, head_dim): feature c with feature c + head_dim / 2; the result has x's dtype."""
    x32 = widened(x)
    return torch.addcmul(x32 * cos, x32.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)


class FeedForward(nn.Module):
    """SwiGLU: W_down( SiLU(W_gate x) ⊙ W_up x ) (Shazeer, 2020)."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) → (…, size)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def chunk_loss(logits: Tensor, targets: Tensor, recording: bool) -> tuple[Tensor, Tensor | None]:
    """Summed cross-entropy of logits (N, V) and targets (N,), and, if `recording`, its gradient softmax(logits) − 1[target]."""
    log_p = F.log_softmax(widened(logits), dim=-1)
    wanted = targets.unsqueeze(1)
    loss = -log_p.gather(1, wanted).sum()
    if not recording:
        return loss, None
    of_logits = log_p.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=log_p.dtype))
    return loss, of_logits.to(logits.dtype)


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Literal["mean", "sum"], of_chunk: ChunkLoss = chunk_loss
) -> Tensor:
    """Cross-entropy of the logits hidden · weightᵀ in nats, a scalar in at least float32; never holds all logits.

    Shapes: hidden (N, d), weight (V, d), targets (N,). `of_chunk` may be `chunk_loss` compiled, which passes over a chunk's
    logits less often. (`F.linear_cross_entropy` does the same in chunks, but cannot be compiled, and was 0.4 nats off
    with bf16 weights.)
    """
    total = _HeadLoss.apply(hidden, weight, targets, torch.is_grad_enabled(), of_chunk)
    return total / len(targets) if reduction == "mean" else total


class _HeadLoss(torch.autograd.Function):
    """Summed cross-entropy over chunks of rows: each chunk's gradients are taken with its loss, and its logits dropped."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, recording: bool, of_chunk: ChunkLoss
    ) -> Tensor:
        recording = recording and (hidden.requires_grad or weight.requires_grad)
        kind = hidden.device.type
        rows = max(1, LOGITS_AT_ONCE.get(kind, LOGITS_AT_ONCE["cpu"]) // len(weight))
        total = torch.zeros((), dtype=wide(hidden.dtype), device=hidden.device)
        # Summed in at least float32: a common token's sum in bf16 would be rounded with each chunk.
        of_hidden, of_weight = [], torch.zeros_like(weight, dtype=wide(weight.dtype)) if recording else None
        cast = weight
        if torch.is_autocast_enabled(kind) and weight.dtype == torch.float32:  # once, and not with each chunk
            cast = weight.to(torch.get_autocast_dtype(kind))
        for part, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
            loss, of_logits = of_chunk(F.linear(part, cast), wanted, recording)
            total += loss
            if of_logits is not None and of_weight is not None:
                of_hidden.append(of_logits @ cast)
                if of_logits.dtype == of_weight.dtype:  # into the sum: an addend is as large as the head
                    of_weight.addmm_(of_logits.T, part)
                else:
                    of_weight += of_logits.T @ part
            del of_logits  # before the next chunk has its own
        if of_weight is not None:
            ctx.save_for_backward(torch.cat(of_hidden).to(hidden.dtype), of_weight.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * grad, of_weight * grad, None, None, None  # not in place: a graph may be kept and asked again
