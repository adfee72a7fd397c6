"""What decoding keeps of the past: one state a layer, rows of the batch first in every tensor.

Rows may have seen different numbers of tokens. Text begins at position 0 of every row, whatever padding it came with,
so a state needs no mask: a row's length tells what of it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE = 64  # positions by which keys and values grow
QueriesKeys = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CacheLengths:
    """How many tokens each row has seen: `rows` (B,), `most` the largest of them, `equal` whether all are.

    `most` and `equal` are plain values, so that no token waits for a device; after `select`, `most` is an upper bound.
    """

    rows: Tensor
    most: int
    equal: bool

    @classmethod
    def none(cls, batch: int, device: torch.device) -> CacheLengths:
        """Nothing seen, in any of `batch` rows."""
        return cls(torch.zeros(batch, dtype=torch.long, device=device), 0, True)

    def after(self, count: int, counts: Tensor | None = None) -> CacheLengths:
        """With `count` more tokens in every row (fewer, where negative), or `counts` (B,), at most `count`."""
        equal = self.equal and counts is None
        return CacheLengths(self.rows + (count if counts is None else counts), self.most + count, equal)

    def select(self, index: Tensor) -> CacheLengths:
        """The lengths of rows `index`."""
        return CacheLengths(self.rows[index], self.most, self.equal)

    def positions(self, count: int) -> Tensor:
        """Positions of the next `count` tokens: (B, count), or (1, count) where all rows are equal."""
        ahead = torch.arange(count, device=self.rows.device)
        return (ahead + self.most)[None] if self.equal else self.rows[:, None] + ahead


class State:
    """What one layer's mixer keeps of the past: `tensors`, each with the batch first, none until it is filled.

    `croppable`: whether the last tokens can be taken back. From running sums they cannot.
    """

    def __init__(self, croppable: bool = False) -> None:
        self.croppable = croppable
        self.tensors: dict[str, Tensor] = {}

    def select(self, index: Tensor) -> None:
        """Keep rows `index` (B',) of the batch, in that order, as beam search reorders and repeats them."""
        with lasting():
            self.tensors = {name: x.index_select(0, index.to(x.device)) for name, x in self.tensors.items()}

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(x.nbytes for x in self.tensors.values())


class KVCache(State):
    """A vector of every position, (B, KV heads, capacity, head_dim), under each name: keys and values, or values alone.

    Capacity grows by whole pages; what lies beyond a row's length is never read.
    """

    def __init__(self) -> None:
        super().__init__(croppable=True)

    def append(self, past: CacheLengths, **vectors: Tensor) -> list[Tensor]:
        """Put vectors (B, heads, n, head_dim) behind each row's `past`; returns all, (B, heads, past.most + n, head_dim)."""
        found = []
        for name, x in vectors.items():
            end = past.most + x.shape[2]
            buffer = self.tensors.get(name, x[:, :, :0].detach())
            if (more := paged(end) - buffer.shape[2]) > 0:
                with lasting():
                    buffer = torch.cat([buffer, x.new_zeros(*x.shape[:2], more, x.shape[3])], dim=2)
                self.tensors[name] = buffer
            if past.equal:
                buffer[:, :, past.most : end] = x.detach()
            else:
                rows = torch.arange(len(buffer), device=buffer.device)[:, None]
                buffer[rows, :, past.positions(x.shape[2])] = x.detach().transpose(1, 2)
            found.append(buffer[:, :, :end])
        return found


class DecodingState:
    """The states of a model's layers, and how many tokens each row has seen (None before the first).

    `side` holds the side stream's queries and keys that the layers read. `padding` counts columns that were padding in every row:
    they took no position, and no layer saw them.
    """

    def __init__(self, layers: list[State]) -> None:
        self.layers = layers
        self.seen: CacheLengths | None = None
        self.side: list[QueriesKeys | None] | None = None
        self.padding = 0

    def select(self, index: Tensor) -> None:
        """Keep rows `index` (B',) of the batch, in that order."""
        if self.seen is not None:
            self.seen = self.seen.select(index)
            for layer in self.layers:
                layer.select(index)

    @property
    def croppable(self) -> bool:
        """Whether tokens can be taken back."""
        return all(layer.croppable for layer in self.layers)

    def crop(self, count: int) -> None:
        """Forget the last `count` tokens of every row.

        Raises:
            ValueError: a layer that keeps sums, or more tokens than a row has seen.
        """
        if not count:
            return
        if not self.croppable:
            raise ValueError("this variant keeps running sums of the past, from which no token can be taken back")
        shortest = 0 if self.seen is None else int(self.seen.rows.min())
        if self.seen is None or count > shortest:
            raise ValueError(f"{count} tokens cannot be taken back: the shortest row has seen {shortest}")
        self.seen = self.seen.after(-count)

    def nbytes(self) -> int:
        """Bytes that the layers hold, and of the side stream's queries and keys those that this state reads."""
        side = sum(x.nbytes for pair in self.side or [] if pair for x in pair)
        return side + sum(layer.nbytes() for layer in self.layers)


def side_positions(length: int, limit: int) -> int:
    """Positions of the side stream that are computed for `length` tokens: a power of two, at most the `limit`."""
    return min(1 << max(0, length - 1).bit_length(), limit)


@contextmanager
def lasting() -> Iterator[None]:
    """For tensors that are written into later: made under inference_mode, they could not be once it is over."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def paged(length: int) -> int:
    """`length` rounded up to whole pages: positions for which memory is held."""
    return -(-length // PAGE) * PAGE
