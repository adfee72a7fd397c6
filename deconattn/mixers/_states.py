"""What decoding keeps of the past: one state a layer, rows of the batch first in every tensor.

Rows may have seen different numbers of tokens. Text begins at position 0 of every row, whatever padding it came with,
so a state needs no mask: a row's length says what of it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE = 64  # positions by which keys and values grow


@dataclass(frozen=True)
class Seen:
    """How many tokens each row has seen: `rows` (B,), `most` of them all, and whether all are equal to it.

    `most` and `equal` are plain values, so that nothing waits for a device at each token.
    """

    rows: Tensor
    most: int
    equal: bool

    def after(self, count: int = 1) -> Seen:
        """The same with `count` more tokens in every row (fewer, where negative)."""
        return Seen(self.rows + count, self.most + count, self.equal)

    def select(self, index: Tensor) -> Seen:
        """Rows `index` of this; `most` stays an upper bound."""
        return Seen(self.rows[index], self.most, self.equal)


class State:
    """What one layer's mixer keeps of the past: `tensors`, each with the batch first, none until it is filled.

    `croppable` says whether the last tokens can be taken back by seeing fewer; from running sums they cannot.
    """

    croppable: bool = False

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def select(self, index: Tensor) -> None:
        """Keep rows `index` (B',) of the batch, in that order: beams are reordered and repeated so."""
        with lasting():
            for name, value in self.tensors.items():
                self.tensors[name] = value.index_select(0, index.to(value.device))

    def reset(self) -> None:
        """Forget everything."""
        self.tensors = {}

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(value.numel() * value.element_size() for value in self.tensors.values())


class Nothing(State):
    """The state of a mixer that never looks back."""

    croppable = True


class Rows(State):
    """A vector of every position, (B, heads, capacity, head_dim), under each name: keys and values, or values alone.

    Capacity grows by whole pages; positions beyond a row's length hold numbers that nobody reads.
    """

    croppable = True

    def fill(self, **vectors: Tensor) -> None:
        """Take the vectors (B, heads, L, head_dim) of the first L positions."""
        for name, x in vectors.items():
            with lasting():
                buffer = x.new_zeros(*x.shape[:2], paged(x.shape[2]), x.shape[3])
            buffer[:, :, : x.shape[2]] = x.detach()
            self.tensors[name] = buffer

    def append(self, seen: Seen, **vectors: Tensor) -> list[Tensor]:
        """Put one more vector (B, heads, 1, head_dim) behind each row's last; returns all, (B, heads, most + 1, head_dim)."""
        every = []
        for name, x in vectors.items():
            buffer = self.tensors[name]
            if seen.most == buffer.shape[2]:
                with lasting():
                    buffer = torch.cat([buffer, buffer.new_zeros(*buffer.shape[:2], PAGE, buffer.shape[3])], dim=2)
                self.tensors[name] = buffer
            if seen.equal:
                buffer[:, :, seen.most] = x[:, :, 0].detach()
            else:
                buffer[torch.arange(len(buffer), device=buffer.device), :, seen.rows] = x[:, :, 0].detach()
            every.append(buffer[:, :, : seen.most + 1])
        return every


@contextmanager
def lasting() -> Iterator[None]:
    """Where tensors are made that are written into later: under inference_mode they could not be, once it is over."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def paged(length: int) -> int:
    """`length` rounded up to whole pages: positions for which memory is held."""
    return -(-length // PAGE) * PAGE
