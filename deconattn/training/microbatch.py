"""How many sequences a process can hold at once, from the memory of its device; no part of what is computed."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from deconattn.errors import UserError
from deconattn.training.parallel import Loss

RESERVE = 0.15  # of the device's memory: gaps in the allocator, working space of kernels, the peak of a backward
SHARDED_BYTES = 12  # a parameter in float32 and two moments
GRADIENT_BYTES = 4  # whole in each process while micro-batches accumulate, sharded or not


def sequences_that_fit(loss: Loss, share: int, length: int, memory: int, processes: int) -> int:
    """The largest micro-batch, a divisor of `share`, whose update fits into `memory` bytes.

    What a sequence of `length` tokens keeps for the backward is counted by running forwards. Weights and optimiser are
    sharded over `processes`, 1 if they are not.

    Raises:
        UserError: not even one sequence fits.
    """
    parameters = sum(parameter.numel() for parameter in loss.parameters())
    state = parameters * SHARDED_BYTES // processes + parameters * GRADIENT_BYTES
    one, two = (bytes_kept(loss, count, length) for count in (1, 2))
    # The side stream, a row that comes once whatever the batch, is in the fixed part.
    each, fixed = max(1, two - one), max(0, 2 * one - two)
    room = int(memory * (1 - RESERVE)) - state - fixed
    if room < each:
        state_gb, each_gb, memory_gb = (f"{size / 1e9:.1f} GB" for size in (state, each + fixed, memory))
        raise UserError(
            f"no micro-batch fits: weights and optimiser take {state_gb}, one sequence of {length} tokens {each_gb}, of "
            f"{memory_gb} with {RESERVE:.0%} kept free; use more processes with sharding: full, or a larger device"
        )
    return max(size for size in range(1, share + 1) if share % size == 0 and size * each <= room)


def bytes_kept(loss: Loss, sequences: int, length: int) -> int:
    """Bytes that a forward of `sequences` × `length` tokens keeps for its backward, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in loss.parameters()}
    kept: WeakSet[_Kept] = WeakSet()

    def keep(tensor: Tensor) -> _Kept:
        one = _Kept(tensor)
        kept.add(one)
        return one

    rows = torch.zeros(sequences, length, dtype=torch.long, device=next(loss.parameters()).device)
    with saved_tensors_hooks(keep, lambda one: one.tensor):
        result = loss(rows)
    # What the head keeps for a chunk of its rows is gone by now.
    storages = {one.tensor.untyped_storage().data_ptr(): one.tensor.untyped_storage().nbytes() for one in kept}
    del result
    return sum(size for place, size in storages.items() if place not in weights)


class _Kept:
    """A tensor for as long as a graph keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
