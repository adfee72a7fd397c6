"""What a whole model keeps while it decodes: one state a layer, and the side stream, which is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deconattn.functions import product_dtype
from deconattn.mixers._contract import QueriesKeys
from deconattn.mixers._scores import side_positions
from deconattn.mixers._states import Seen, State

if TYPE_CHECKING:
    from deconattn.model import Decoder


class DecodingState:
    """The states of a model's layers, and how many tokens each row has seen (None before the first).

    `padding` counts the columns that came beside the longest row's text and took no position: whoever sends masks counts
    them, the layers never saw them.
    """

    def __init__(self, layers: list[State]) -> None:
        self.layers = layers
        self.seen: Seen | None = None
        self.side: list[QueriesKeys | None] | None = None
        self.padding = 0

    def begin(
        self,
        batch: int,
        length: int,
        lengths: Tensor | None,
        device: torch.device,
        side: list[QueriesKeys | None] | None,
    ) -> None:
        """Note that the first `length` positions have been seen, of each row its first `lengths` (B,), beside `side`."""
        self.side = side
        rows = torch.full((batch,), length, device=device) if lengths is None else lengths
        self.seen = Seen(rows, length, lengths is None)

    def reset(self) -> None:
        """Forget everything."""
        self.seen = self.side = None
        self.padding = 0
        for layer in self.layers:
            layer.reset()

    def select(self, index: Tensor) -> None:
        """Keep rows `index` (B',) of the batch, in that order."""
        if self.seen is not None:
            self.seen = self.seen.select(index)
            for layer in self.layers:
                layer.select(index)

    @property
    def croppable(self) -> bool:
        """Whether tokens can be taken back; not from running sums."""
        return all(layer.croppable for layer in self.layers)

    def crop(self, count: int) -> None:
        """Forget the last `count` tokens of every row.

        Raises:
            ValueError: a layer that keeps sums and cannot forget, or more tokens than a row has seen.
        """
        if not count:
            return
        if not self.croppable:
            raise ValueError("this variant keeps running sums of the past, from which no token can be taken back")
        shortest = 0 if self.seen is None else self.seen.most if self.seen.equal else int(self.seen.rows.min())
        if count > shortest:
            raise ValueError(f"{count} tokens cannot be taken back: the shortest row has seen {shortest}")
        assert self.seen is not None
        self.seen = self.seen.after(-count)

    def side_for(self, length: int) -> list[QueriesKeys | None] | None:
        """The side stream's queries and keys, where they reach `length` positions."""
        known = next((pair for pair in self.side or [] if pair), None)
        return self.side if known and known[0].shape[2] >= length else None

    def nbytes(self) -> int:
        """Bytes that the layers hold, and the side stream's queries and keys.

        Those are views of what the model keeps for all states; the positions that this state reads are counted, as though it
        were the only one, whatever longer text the model has seen before.
        """
        return sum(layer.nbytes() for layer in self.layers) + side_nbytes(self.side)


class SideMemory:
    """Queries and keys of the side stream in every layer, kept for as long as the weights that made them stay as they are."""

    def __init__(self) -> None:
        self._made_from: tuple[object, ...] = ()
        self._length = 0
        self._layers: list[QueriesKeys | None] = []

    def of(
        self, decoder: Decoder, length: int, make: Callable[[int], list[QueriesKeys | None]]
    ) -> list[QueriesKeys | None]:
        """Each layer's q and k of the `side_positions` of `length`, made by `make(positions)` when weights or length need it.

        They are cut from those of the longest text so far, so that a state's size depends on its own text alone.
        """
        made_from = _fingerprint(decoder)
        positions = side_positions(decoder.config, length)
        if made_from != self._made_from or not self._made_from or self._length < length:
            self._layers, self._made_from, self._length = make(positions), made_from, positions
        return [pair and (pair[0][:, :, :positions], pair[1][:, :, :positions]) for pair in self._layers]


def side_nbytes(side: list[QueriesKeys | None] | None) -> int:
    """Bytes of the side stream's queries and keys in all layers."""
    return sum(x.numel() * x.element_size() for pair in side or [] if pair for x in pair)


def _fingerprint(module: nn.Module) -> tuple[object, ...]:
    """Changes with the precision and with every update of a weight that shows; empty where it cannot tell.

    A new tensor shows in its address, an update in place in its version. An update through `.data` raises no version, as when
    averaged weights are exchanged for the others: it shows where it changes one of the numbers that `_sample` looks at.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(x.is_inference() or x.is_meta for x in tensors):
        return ()
    if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return ()  # a graph that is being recorded must not wait for numbers
    known = ((x.data_ptr(), x._version, x.dtype) for x in tensors)
    return (product_dtype(tensors[0]), *known, *_sample(tensors))


def _sample(tensors: list[Tensor]) -> list[float]:
    """The number in the middle of each tensor, brought over together: a device waits once a kind of number, not once a tensor."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        # Of a tensor that is sharded, what lies here: to look at another's part all would have to come together.
        x: Tensor = getattr(tensor, "to_local", tensor.detach)()
        if x.numel():
            groups.setdefault((x.device, x.dtype), []).append(x[tuple(size // 2 for size in x.shape)])
    return [number for group in groups.values() for number in torch.stack(group).tolist()]
