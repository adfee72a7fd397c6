"""The fixed stream whose queries and keys `rndembqk` and `fixedseqqk` read (docs/method.md): what inference keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from deconattn.mixers.cache import QueriesKeys, side_positions


class SideMemory:
    """Queries and keys of the side stream in every layer, kept as long as the weights that made them stay as they are.

    Loading and other writes in place raise a tensor's version; a new tensor has another address; optimisers' steps are
    counted, as fused ones raise no version. The decoder also clears the memory on `train()` and `eval()` and when it is cast or
    moved. Only a write through `.data` goes unseen: call `eval()` after it.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._made_from: tuple[object, ...] | None = None
        self._length = 0
        self._layers: list[QueriesKeys | None] = []

    def of(
        self, tensors: Iterable[Tensor], length: int, limit: int, make: Callable[[int], list[QueriesKeys | None]]
    ) -> list[QueriesKeys | None]:
        """Each layer's q and k at the `side_positions` of `length`, made by `make(positions)` when `tensors` or length need it.

        They are cut from those of the longest text so far, so that a state's size depends on its own text alone.
        """
        made_from, positions = _versions(list(tensors)), side_positions(length, limit)
        if made_from is None or made_from != self._made_from or self._length < length:
            self._layers, self._made_from, self._length = make(positions), made_from, positions
        return [pair and (pair[0][:, :, :positions], pair[1][:, :, :positions]) for pair in self._layers]


_steps = 0


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


def _versions(tensors: list[Tensor]) -> tuple[object, ...] | None:
    """What changes when a weight or autocast's precision does; None where tensors have no versions."""
    if any(x.is_inference() or x.is_meta for x in tensors):
        return None
    kind = tensors[0].device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return _steps, autocast, *((x.data_ptr(), x._version, x.dtype) for x in tensors)
