"""Causal softmax attention, shared by the variants whose form is softmax(q·k / √dh)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deconattn.mixers._contract import future, scores

BLOCK = 256  # queries a block of the shared map; up to here the whole map is made at once


def softmax_map(q: Tensor, k: Tensor) -> Tensor:
    """A = softmax over j ≤ i of s (SPEC §3, standard), (B, heads, L, L)."""
    return scores(q, k).masked_fill(future(q.shape[2], q.device), -torch.inf).softmax(-1)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A @ v for q, k, v (B, heads, L, head_dim).

    On a CPU in bf16 the fused kernel's backward is two to four times slower than the explicit form up to L = 512.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= 512:
        return _explicit(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = scores(q, k).float().masked_fill(future(q.shape[2], q.device), -torch.inf)
    return s.softmax(-1).to(v.dtype) @ v


def shared_softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A @ v where one map serves the whole batch: q, k (1, heads, L, head_dim), v (B, heads, L, head_dim).

    The batch is folded into the features, so that each head is one matrix product (L, L) × (L, B·head_dim). Above
    `BLOCK` the map is made block-wise over queries and never held whole.
    """
    batch, heads, length, head_dim = v.shape
    folded = v.permute(1, 2, 0, 3).reshape(heads, length, batch * head_dim)
    blocks = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        s = scores(q[0, :, start:end], k[0, :, :end])
        mask = future(end, q.device)[start:end]
        wide = s.float() if s.dtype == torch.bfloat16 else s
        attention = wide.masked_fill(mask, -torch.inf).softmax(-1).to(v.dtype)
        blocks.append(attention @ folded[:, :end])
    mixed = torch.cat(blocks, dim=1)
    return mixed.view(heads, length, batch, head_dim).permute(2, 0, 1, 3)
