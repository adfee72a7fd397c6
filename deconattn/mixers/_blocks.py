"""Attention whose weights are a positive function of the scores, normalised: exact, block-wise or with its whole map.

`block_attention` takes blocks of queries against all keys up to the block's end. The upper half is never computed, no map is
held, and backward makes each block's scores again. It serves Taylor attention everywhere on a CPU, and softmax with one map
for the whole batch, where PyTorch's fused kernel is slower. `whole_attention` makes the whole square: softmax in bf16 on a CPU,
on sequences short enough that this is the fastest; the shortest hold it for backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from deconattn.autograd import first_order
from deconattn.functions import widened, without_autocast

BLOCK = 128  # queries a block
HELD_UP_TO = (
    128  # positions of a whole map that backward finds held; longer ones weigh more than the time to make them again
)
Form = Literal["exponential", "taylor"]


def block_attention(q: Tensor, k: Tensor, v: Tensor, form: Form) -> Tensor:
    """Σ_{j≤i} w(s_ij) v_j / Σ_{j≤i} w(s_ij), s = q_i·k_j / √dh: q, k (B, heads, L, dh), v (B, heads, L, D) → (B, heads, L, D).

    w is e^s or 1 + s + s²/2. Where q and k have one row and v has B, the batch is folded into the features: each head is
    one product (n, m) × (m, B·D).
    """
    return _by_heads(q, k, v, lambda *heads: BlockAttention.apply(*heads, form))


def whole_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention with its whole map, in v's precision once it is made: the fastest in bf16 on short sequences.

    Shapes as `block_attention`.
    """
    return _by_heads(q, k, v, WholeAttention.apply)


def _by_heads(q: Tensor, k: Tensor, v: Tensor, attend: Callable[..., Tensor]) -> Tensor:
    batch, heads, length, size = v.shape
    with without_autocast(v.device):
        if q.shape[0] == batch:
            return attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view(v.shape)
        mixed = attend(q[0], k[0], v.permute(1, 2, 0, 3).reshape(heads, length, batch * size))
        return mixed.view(heads, length, batch, size).permute(2, 0, 1, 3)


class WholeAttention(torch.autograd.Function):
    """`whole_attention` of q, k (N, L, dh), v (N, L, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        a = _whole_map(q, k, v.dtype)
        ctx.save_for_backward(q, k, v, a if q.shape[1] <= HELD_UP_TO else None)
        return a @ v

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, a = ctx.saved_tensors
        a = _whole_map(q, k, v.dtype) if a is None else a
        of_s = torch._softmax_backward_data(grad @ v.transpose(1, 2), a, -1, a.dtype).mul_(q.shape[-1] ** -0.5)
        return of_s @ k, of_s.transpose(1, 2) @ q, a.transpose(1, 2) @ grad


def _whole_map(q: Tensor, k: Tensor, dtype: torch.dtype) -> Tensor:
    return weigh(block_scores(q, k, 0, q.shape[1]), 0, "exponential")[0].to(dtype)


class BlockAttention(torch.autograd.Function):
    """`block_attention` of q, k (N, L, dh), v (N, L, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, form: Form) -> Tensor:
        out = torch.empty_like(v)
        total = torch.ones_like(widened(v[..., :1]))
        for start, end in blocks(q.shape[1]):
            rows = (slice(None), slice(start, end))
            w, _ = weigh(block_scores(q, k, start, end), start, form)
            if form == "taylor":
                total[rows] = w.sum(-1, keepdim=True)
            out[rows] = (w.to(v.dtype) @ v[:, :end]) / total[rows]
        ctx.save_for_backward(q, k, v, out, total)
        ctx.form = form
        return out

    @staticmethod
    @first_order
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
            w, slope = weigh(block_scores(q, k, start, end), start, ctx.form)
            grad_v[:, :end] += w.to(v.dtype).transpose(1, 2) @ grad[rows]
            of_w = widened(grad[rows] @ v[:, :end].transpose(1, 2)).sub_(inner[rows])
            of_s = of_w.mul_(slope).mul_(q.shape[-1] ** -0.5).to(q.dtype)
            grad_q[rows] = of_s @ k[:, :end]
            grad_k[:, :end] += of_s.transpose(1, 2) @ q[rows]
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def block_scores(q: Tensor, k: Tensor, start: int, end: int) -> Tensor:
    """s of queries start … end-1 against keys 0 … end-1, at least float32, from q, k (N, L, dh)."""
    keys = k[:, :end].transpose(1, 2)
    if q.dtype in (torch.bfloat16, torch.float16):  # scaled after rounding up, and baddbmm is slow there
        return widened(q[:, start:end] @ keys).mul_(q.shape[-1] ** -0.5)
    return torch.baddbmm(q.new_empty(()), q[:, start:end], keys, beta=0, alpha=q.shape[-1] ** -0.5)


def weigh(s: Tensor, start: int, form: Form) -> tuple[Tensor, Tensor]:
    """w(s) and w′(s), 0 where the key lies after the query, of s (N, n, start + n), which is overwritten; e^s normalised."""
    n, diagonal = s.shape[-2], s[..., start:]
    # Added and multiplied masks: filling by a mask takes ten times as long.
    if form == "exponential":
        diagonal.add_(torch.full((n, n), -torch.inf, dtype=s.dtype, device=s.device).triu_(1))
        # In place on a CPU, where a fresh page costs more than the exponentials that fill it.
        w = torch.softmax(s, -1, out=s) if s.is_cpu else s.softmax(-1)
        return w, w
    seen = torch.ones(n, n, dtype=s.dtype, device=s.device).tril_()
    slope = s.add_(1)  # w = 1 + s + s²/2 = ((1 + s)² + 1) / 2
    w = slope.square().add_(1).mul_(0.5)
    w[..., start:].mul_(seen)
    diagonal.mul_(seen)
    return w, slope
