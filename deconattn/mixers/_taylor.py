"""Taylor attention on a GPU, by one fused kernel, and in long decoding, from sums over φ(k)."""

from __future__ import annotations

import torch
from torch import Tensor

from deconattn.functions import widened
from deconattn.mixers._states import Rows, State, lasting

SUMMED_AT_ONCE = 256  # positions whose φ(k) is held at a time


def taylor_weights(s: Tensor) -> Tensor:
    """w = 1 + s + s²/2."""
    return 1 + s * (1 + 0.5 * s)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same of q (B, heads, L, dh) not scaled, by one kernel: softmax of log(1 + s + s²/2) is Taylor attention.

    flex_attention has a backward on GPUs alone.
    """
    # Imported when it is used: the compiler behind it takes seconds to load.
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=str(q.device))
    kernel = torch.compile(flex_attention) if q.is_cuda else flex_attention
    return kernel(q, k, v, score_mod=log_taylor, block_mask=mask)


def log_taylor(s: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """log(1 + s + s²/2), a score_mod of flex_attention."""
    return torch.log(taylor_weights(s))


def features(head_dim: int) -> int:
    """Size of φ: 1, dh, and the dh(dh + 1)/2 different products of two entries."""
    return 1 + head_dim + head_dim * (head_dim + 1) // 2


def phi(x: Tensor) -> Tensor:
    """φ(x) (…, features) with φ(q)·φ(k) = 1 + q·k + (q·k)²/2, of x (…, dh)."""
    size = x.shape[-1]
    row, column = torch.triu_indices(size, size, device=x.device)
    # Each product of two different entries stands for both orders: weight 2·½; a square for itself: ½.
    weight = x.new_ones(len(row)).masked_fill(row == column, 0.5**0.5)
    ones = x.new_ones(*x.shape[:-1], 1)
    return torch.cat([ones, x, x[..., row] * x[..., column] * weight], dim=-1)


def switch(head_dim: int) -> int:
    """The length from which the sums are cheaper to decode from than keys and values.

    A step reads L keys and values, 2·L·dh numbers and 4·L·dh FLOPs a head; it reads and writes F·(dh + 1) sums, with
    4·F·(dh + 1) FLOPs. Both agree on L = F·(dh + 1) / dh.
    """
    return features(head_dim) * (head_dim + 1) // head_dim


class TaylorState(State):
    """Keys and values of the past, and from `sum_up` on Σ φ(k)·[v, 1], (B, KV heads, features, dh + 1), in their place."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Rows | None = Rows()

    @property
    def croppable(self) -> bool:  # type: ignore[override]
        """Whether tokens can be taken back: not from a sum."""
        return self.rows is not None

    def select(self, index: Tensor) -> None:
        super().select(index)
        if self.rows is not None:
            self.rows.select(index)

    def reset(self) -> None:
        super().reset()
        self.rows = Rows()

    def nbytes(self) -> int:
        return super().nbytes() + (self.rows.nbytes() if self.rows is not None else 0)

    def sum_up(self, lengths: Tensor) -> None:
        """Turn the first `lengths` (B,) keys and values of each row into sums, and let go of them."""
        assert self.rows is not None
        keys, values = self.rows.tensors["keys"], self.rows.tensors["values"]
        total: Tensor | int = 0
        for start in range(0, keys.shape[2], SUMMED_AT_ONCE):
            k, v = (widened(x[:, :, start : start + SUMMED_AT_ONCE]) for x in (keys, values))
            place = torch.arange(start, start + k.shape[2], device=k.device)
            seen = (place < lengths[:, None])[:, None, :, None]
            total = total + phi(_scaled(k)).transpose(-1, -2) @ (_with_one(v) * seen)
        assert isinstance(total, Tensor)
        if total.is_inference():
            with lasting():  # `step` adds to them in place
                total = total.clone()
        self.tensors["sums"], self.rows = total, None

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One more k and v (B, KV heads, 1, dh) into the sums, and what q (B, KV heads, group, dh) reads: (B, heads, 1, dh)."""
        sums = self.tensors["sums"]
        new = phi(_scaled(widened(k))).transpose(-1, -2).flatten(0, 1)
        sums.flatten(0, 1).baddbmm_(new, _with_one(widened(v)).flatten(0, 1))
        mixed = phi(_scaled(widened(q))) @ sums
        return (mixed[..., :-1] / mixed[..., -1:]).to(v.dtype).flatten(1, 2).unsqueeze(2)


def _scaled(x: Tensor) -> Tensor:
    """x·dh^(−1/4): of q and of k alike, so that their product carries 1/√dh."""
    return x * x.shape[-1] ** -0.25


def _with_one(v: Tensor) -> Tensor:
    """[v, 1]: the sum of the last entry is the normaliser."""
    return torch.nn.functional.pad(v, (0, 1), value=1.0)
