"""Element-wise functions with a backward of their own: fewer passes over memory, and less of it held for backward.

Under autocast they give their result in its precision, which is what the matrix product behind them would take it to.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.autograd import first_order
from deconattn.products import add_product, product

ROWS_AT_ONCE = 512  # tokens at least whose gates are differentiated together on a CPU


def widened(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Leave the choice of precision to what follows; where there is no autocast, nothing needs to be done."""
    kind = device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision in which matrix products of x are taken: autocast's, or its own."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.is_floating_point():
        return x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(kind)
    return x.dtype


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + ε) · weight over the last dimension, computed in at least float32 (Zhang & Sennrich, 2019)."""
    return _RMSNorm.apply(x, weight, eps, product_dtype(x))


def gated_mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """SwiGLU, down·(SiLU(gate·x) ⊙ up·x) (Shazeer, 2020): x (…, d), gate and up (m, d), down (d, m) → (…, d).

    Held for backward are the two products behind the gate; the gated product and the sigmoid are made again, once for all.
    """
    return _GatedMLP.apply(x, gate, up, down, product_dtype(x))


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
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        normed, grad = widened(x) * scale, widened(grad)
        along = normed * grad
        inner = (along @ weight.to(along.dtype)).unsqueeze(-1).div_(x.shape[-1])
        grad_weight = along.flatten(0, -2).sum(0)
        grad_x = (grad * weight).addcmul_(normed, inner, value=-1).mul_(scale)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None, None


class _GatedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, dtype: torch.dtype) -> Tensor:
        with without_autocast(x.device):
            rows = x.flatten(0, -2).to(dtype)
            weights = [w.to(dtype) for w in (gate, up, down)]
            gated, other = product(rows, weights[0]), product(rows, weights[1])
            ctx.save_for_backward(rows, gated, other, *weights)
            ctx.kinds = (x.dtype, gate.dtype)
            return product(F.silu(gated).mul_(other), weights[2]).view(x.shape)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, gated, other, gate, up, down = ctx.saved_tensors
        to_x, to_weight = ctx.kinds
        shape, grad = grad.shape, grad.flatten(0, -2).to(x.dtype)
        grad_x = torch.empty_like(x)
        # Summed in at least float32: each of many steps would round a low precision anew.
        wide = torch.promote_types(to_weight, torch.float32)
        sums = [torch.zeros_like(w, dtype=wide) for w in (gate, up, down)]
        # Enough rows that adding to the weights' gradients costs less than what the rows themselves do.
        step = len(x) if x.is_cuda else max(ROWS_AT_ONCE, 2 * x.shape[1])
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            some = (x[rows], gated[rows], other[rows], grad[rows])
            _gated_mlp_backward(some, (gate, up, down), grad_x[rows], sums)
        of_weights = [total.to(to_weight) for total in sums]
        return grad_x.to(to_x).view(shape), of_weights[0], of_weights[1], of_weights[2], None


def _gated_mlp_backward(
    rows: tuple[Tensor, Tensor, Tensor, Tensor],
    weights: tuple[Tensor, Tensor, Tensor],
    grad_x: Tensor,
    sums: list[Tensor],
) -> None:
    """Gradients of some rows: written into `grad_x`, added to the weights' `sums`. A function, so that nothing outlives it."""
    x, gated, other, grad = rows
    gate, up, down = weights
    sigmoid = torch.sigmoid(gated)
    silu = gated * sigmoid
    add_product(sums[2], grad, silu * other)
    slope = torch.lerp(silu, silu.new_ones(()), sigmoid)  # SiLU′ = SiLU + σ·(1 − SiLU)
    del sigmoid
    of_product = product(grad, down.t())
    grad_other = silu.mul_(of_product)
    grad_gated = slope.mul_(other).mul_(of_product)
    torch.add(product(grad_gated, gate.t()), product(grad_other, up.t()), out=grad_x)
    add_product(sums[0], grad_gated, x)
    add_product(sums[1], grad_other, x)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = widened(x).chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # which writes into parts of a tensor by itself, and not as told
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    out = torch.empty_like(x, dtype=first.dtype)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return out.to(x.dtype)
