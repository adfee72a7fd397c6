"""Element-wise functions with a backward of their own: fewer passes over memory, and less of it held for backward.

Under autocast they give their result in its precision, which is what the matrix product behind them would take it to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def widened(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision in which matrix products of x are taken: autocast's, or its own."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.is_floating_point():
        return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(kind)
    return x.dtype


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + ε) · weight over the last dimension, computed in at least float32 (Zhang & Sennrich, 2019)."""
    return _RMSNorm.apply(x, weight, eps, product_dtype(x))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) ⊙ up (Shazeer, 2020)."""
    return _SwiGLU.apply(gate, up)


def down_projected(down: nn.Linear, gate: Tensor, up: Tensor) -> Tensor:
    """down(SiLU(gate) ⊙ up), holding gate and up for backward but not their product, which is made again."""
    product = swiglu(gate, up)
    if not product.requires_grad or torch.compiler.is_compiling():  # a compiler weighs for itself what to make again
        return down(product)
    shape, place = product.shape, product.data_ptr()

    def pack(saved: Tensor) -> Tensor | tuple[int, ...]:
        return tuple(saved.shape) if saved.data_ptr() == place and saved.numel() == shape.numel() else saved

    def unpack(packed: Tensor | tuple[int, ...]) -> Tensor:
        return packed if isinstance(packed, Tensor) else F.silu(gate).mul_(up).view(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return down(product)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x₁cos − x₂sin, x₂cos + x₁sin) of the halves x₁, x₂ of the last dimension; cos and sin broadcast to a half of x."""
    return _Rotation.apply(x, cos, sin)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = widened(x)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        normed, grad = widened(x) * scale, widened(grad)
        along = normed * grad
        inner = (along @ weight.to(along.dtype)).unsqueeze(-1).div_(x.shape[-1])
        grad_weight = along.flatten(0, -2).sum(0)
        grad_x = (grad * weight).addcmul_(normed, inner, value=-1).mul_(scale)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = widened(x).chunk(2, dim=-1)
    out = torch.empty_like(x)
    half = x.shape[-1] // 2
    out[..., :half] = (first * cos).addcmul_(second, sin, value=-1)
    out[..., half:] = (second * cos).addcmul_(first, sin)
    return out
