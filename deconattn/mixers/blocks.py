"""Attention whose weights are a positive function of the scores, normalised: exact, in blocks of queries.

Each block meets all keys up to its own end. The upper half is never computed, no map is held, and backward makes each block's
scores again. It serves Taylor attention, and softmax with one map for the whole batch, for which PyTorch has no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deconattn.layers import widened, without_autocast
from deconattn.mixers.base import blocks

Weigh = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor | float]]


def block_attention(q: Tensor, k: Tensor, v: Tensor, weigh: Weigh) -> Tensor:
    """Σ_{j≤i} w(s_ij) v_j / Σ_{j≤i} w(s_ij), s = q_i·k_j / √dh: q, k (B, heads, L, dh), v (B, heads, L, D) → (B, heads, L, D).

    weigh(s, start) gives w, w′ and Σ_j w for scores s (N, n, start + n), which it may overwrite; w is 0 where a key lies after
    its query. Where q and k have one row and v has B, the batch is folded into the features: each head is one product
    (n, m) × (m, B·D).
    """
    batch, heads, length, size = v.shape
    with without_autocast(v.device):
        if q.shape[0] == batch:
            return BlockAttention.apply(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), weigh).view(v.shape)
        folded = v.permute(1, 2, 0, 3).reshape(heads, length, batch * size)
        mixed = BlockAttention.apply(q[0], k[0], folded, weigh)
        return mixed.view(heads, length, batch, size).permute(2, 0, 1, 3)


class BlockAttention(torch.autograd.Function):
    """`block_attention` of q, k (N, L, dh), v (N, L, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, weigh: Weigh) -> Tensor:
        out = torch.empty_like(v)
        total = torch.empty_like(widened(v[..., :1]))
        for start, end in blocks(q.shape[1]):
            rows = (slice(None), slice(start, end))
            w, _, total[rows] = weigh(block_scores(q, k, start, end), start)
            out[rows] = (w.to(v.dtype) @ v[:, :end]) / total[rows]
        ctx.save_for_backward(q, k, v, out, total)
        ctx.weigh = weigh
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, total = ctx.saved_tensors
        # ∂o_i/∂w_ij = (v_j − o_i) / Σ w_i
        grad = widened(grad) / total
        inner = (grad * widened(out)).sum(-1, keepdim=True)
        grad = grad.to(v.dtype)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = (torch.zeros_like(x, dtype=total.dtype) for x in (k, v))
        for start, end in blocks(q.shape[1]):
            rows = (slice(None), slice(start, end))
            w, slope, _ = ctx.weigh(block_scores(q, k, start, end), start)
            grad_v[:, :end] += w.to(v.dtype).transpose(1, 2) @ grad[rows]
            of_w = widened(grad[rows] @ v[:, :end].transpose(1, 2)).sub_(inner[rows])
            of_s = of_w.mul_(slope).mul_(q.shape[-1] ** -0.5).to(q.dtype)
            grad_q[rows] = of_s @ k[:, :end]
            grad_k[:, :end] += of_s.transpose(1, 2) @ q[rows]
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def block_scores(q: Tensor, k: Tensor, start: int, end: int) -> Tensor:
    """s of queries start … end-1 against keys 0 … end-1, at least float32, from q, k (N, L, dh)."""
    keys = k[:, :end].transpose(1, 2)
    if q.dtype in (torch.bfloat16, torch.float16):  # scaled after rounding up, and baddbmm is slow there
        return widened(q[:, start:end] @ keys).mul_(q.shape[-1] ** -0.5)
    return torch.baddbmm(q.new_empty(()), q[:, start:end], keys, beta=0, alpha=q.shape[-1] ** -0.5)


def softmax(s: Tensor, start: int) -> tuple[Tensor, Tensor, float]:
    """Causal softmax as a `Weigh`: w = w′ = e^s, normalised already."""
    n = s.shape[-2]
    # A mask that is added: filling by one takes ten times as long.
    s[..., start:].add_(torch.full((n, n), -torch.inf, dtype=s.dtype, device=s.device).triu_(1))
    # In place on a CPU, where a fresh page costs more than the exponentials that fill it.
    w = torch.softmax(s, -1, out=s) if s.is_cpu else s.softmax(-1)
    return w, w, 1.0
