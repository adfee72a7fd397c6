"""How many sequences a process can hold at once: worked out from the device's memory, no part of what is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from deconattn.errors import UserError
from deconattn.model import LanguageModel

RESERVE = (
    0.15  # of the device's memory: for the allocator's gaps, kernels' working space and the transient of a backward
)
STATE_BYTES = 16  # a parameter in float32, its gradient and two moments
Autocast = Callable[[], torch.autocast]


def sequences_that_fit(model: LanguageModel, share: int, length: int, memory: int, processes: int, bf16: bool) -> int:
    """The largest micro-batch, a divisor of `share`, whose update fits into `memory` bytes.

    What one sequence of `length` tokens keeps for the backward is counted by running its forward once. `processes` is over how
    many the weights and the optimiser's state are sharded, 1 if they are not.

    Raises:
        UserError: not even one sequence fits.
    """
    state = STATE_BYTES * sum(parameter.numel() for parameter in model.parameters()) // processes
    one, two = (bytes_kept(model, count, length, bf16) for count in (1, 2))
    # The side stream, a row that comes once whatever the batch, is in the fixed part.
    each, fixed = max(1, two - one), max(0, 2 * one - two)
    room = int(memory * (1 - RESERVE)) - state - fixed
    if room < each:
        raise UserError(
            f"no micro-batch fits: weights and optimiser take {_gb(state)}, one sequence of {length} tokens {_gb(each + fixed)}, "
            f"of {_gb(memory)} with {RESERVE:.0%} kept free; use more processes with sharding: full, or a larger device"
        )
    return max(size for size in range(1, share + 1) if share % size == 0 and size * each <= room)


def bytes_kept(model: LanguageModel, sequences: int, length: int, bf16: bool) -> int:
    """Bytes that a forward of `sequences` × `length` tokens keeps for its backward, weights aside."""
    device = model.lm_head.weight.device
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = torch.zeros(sequences, length, dtype=torch.long, device=device)
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = model.loss(rows, reduction="sum")
    total = sum(kept.values())
    del loss
    return total


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
