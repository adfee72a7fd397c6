"""Rotary position embedding (RoPE; Su et al., 2021), in the half-split form of Qwen2."""

from __future__ import annotations

import torch
from torch import Tensor

from deconattn.functions import rotate_halves

_TABLES: dict[tuple[int, float, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def rotary_tables(length: int, head_dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of positions 0 … length-1, each (length, head_dim / 2), at least float32 whatever the dtype of `like`.

    One pair of tables a (head size, base, device, dtype) serves all layers and grows to the longest length asked for.
    Not buffers: nothing of them belongs into a checkpoint, and a model that is built on the meta device, as transformers does
    when it loads, would lose what no file restores.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    key = (head_dim, theta, like.device, dtype)
    if key not in _TABLES or len(_TABLES[key][0]) < length:
        # In float32 frequencies and angles too, as Qwen2 does, so that logits agree to the last bits.
        with torch.inference_mode(False):  # made while generating, they must still serve a later training
            exponent = torch.arange(0, head_dim, 2, dtype=dtype, device="cpu") / head_dim
            angle = torch.outer(torch.arange(_rounded(length), dtype=dtype, device="cpu"), 1.0 / theta**exponent)
            tables = angle.cos().to(like.device), angle.sin().to(like.device)
        if type(angle) is not Tensor:  # a stand-in of one that is only being traced must not serve anyone else
            return tables[0][:length], tables[1][:length]
        _TABLES[key] = tables
    cos, sin = _TABLES[key]
    return cos[:length], sin[:length]


def _rounded(length: int) -> int:
    """The next power of two, so that lengths that grow one by one make few tables."""
    return 1 << max(0, length - 1).bit_length()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (B, heads, L, head_dim) by its position: feature c with feature c + head_dim / 2; the result has x's dtype."""
    return rotate_halves(x, *tables)
