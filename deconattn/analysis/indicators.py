"""Indicators of an attention map A, (…, heads, L, L): rows sum to 1, A_ij = 0 for j > i (method.md). Raw values.

Readings: the standard deviation over heads is that of the heads as they are (divided by their number, not by one
less), so that a model of one head has a diversity of 0; 0·log 0 is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deconattn.errors import UserError

LOCAL_FOCUS = (0, 1, 2, 3)
PER_HEAD = ("entropy", "concentration", "sink", *(f"local_focus_{n}" for n in LOCAL_FOCUS))
PER_LAYER = ("head_diversity",)


def indicators(attention: Tensor) -> dict[str, Tensor]:
    """All of `PER_HEAD`, (…, heads), and of `PER_LAYER`, (…)."""
    return {
        "entropy": entropy(attention),
        "concentration": concentration(attention),
        "sink": sink(attention),
        **{f"local_focus_{n}": local_focus(attention, n) for n in LOCAL_FOCUS},
        "head_diversity": head_diversity(attention),
    }


def entropy(attention: Tensor) -> Tensor:
    """−Σ_j A_ij log A_ij, mean over queries i, in nats: (…, heads)."""
    return torch.special.entr(attention).sum(-1).mean(-1)


def concentration(attention: Tensor) -> Tensor:
    """Frobenius norm ‖A‖_F, between 1 and √L: (…, heads)."""
    return torch.linalg.matrix_norm(attention)


def head_diversity(attention: Tensor) -> Tensor:
    """2 / (L(L+1)) · Σ_{i≥j} std over heads of A_ij: (…)."""
    length = attention.shape[-1]
    # The upper triangle is 0 in every head and adds nothing.
    spread = attention.std(-3, correction=0)
    return 2 / (length * (length + 1)) * spread.sum((-2, -1))


def sink(attention: Tensor) -> Tensor:
    """A_i1, mean over all queries i: (…, heads)."""
    return attention[..., 0].mean(-1)


def local_focus(attention: Tensor, n: int) -> Tensor:
    """A_i,i−n, mean over the queries i > n that have such a key: (…, heads).

    Raises:
        UserError: no query has a key n positions back.
    """
    length = attention.shape[-1]
    if n >= length:
        raise UserError(f"local focus {n}: a map of {length} positions has none; must be at most {length - 1}")
    return attention.diagonal(-n, -2, -1).mean(-1)
