"""What one mixer really holds: saved for backward, at its peak, and between two tokens of decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from deconattn.mixers._contract import Mixer, QueriesKeys
from deconattn.mixers._rotary import rotary_tables
from deconattn.mixers._states import State


def storage_bytes(tensors: Iterable[Tensor], without: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages under `tensors`, each counted once and whole, but those under `without`."""
    known = {x.untyped_storage().data_ptr() for x in without}
    found = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(size for place, size in found.items() if place not in known)


def held_for_backward(mixer: Mixer, hidden: Tensor, source: Tensor) -> int:
    """Bytes that autograd holds after `forward`, as `deconattn.mixers._costs` defines activations.

    `hidden` (B, L, d) and `source` (B or 1, L, d) want gradients, as in training.
    """
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = mixer(hidden, source)
    config = mixer.config
    tables = rotary_tables(hidden.shape[1], config.head_dim, config.rope_theta, hidden)
    held = storage_bytes(saved, [*mixer.parameters(), hidden, source, *tables])
    del output
    return held


def held_for_decoding(state: State, side: QueriesKeys | None) -> int:
    """Bytes of the storages under a state, and under the side stream's queries and keys."""
    return storage_bytes([*_tensors(state), *(side or ())])


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler writes two lines to file descriptor 2 whenever it starts and stops, whatever its log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _tensors(held: object) -> Iterator[Tensor]:
    """Every tensor that a state reaches, whatever it calls it."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from _tensors(value)
    elif isinstance(held, State):
        yield from _tensors(vars(held))


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """The most bytes held at any moment of `work` beyond what was held before it, temporaries inside kernels included.

    On a GPU from the caching allocator's record, on a CPU from every allocation and release that its allocator reports.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _quiet_profiler(), torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    assert profile.kineto_results is not None
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
