"""Memory of one mixer as measured: saved for backward, at the peak, and kept between two steps of decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from deconattn.layers import Rotary
from deconattn.mixers.base import Mixer
from deconattn.mixers.cache import QueriesKeys, State


def held_for_backward(mixer: Mixer, hidden: Tensor, source: Tensor) -> int:
    """Bytes of activations: every storage that autograd keeps of one mixer between forward and backward, once and whole.

    Parameters, `hidden` (B, L, d), `source` (B or 1, L, d) and RoPE's tables are left out. Both inputs need gradients, as
    in training. On the meta device nothing is allocated.
    """
    saved: dict[StorageWeakRef, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved.update(storages([x]))
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = mixer(hidden, source)
    tables = [x for part in mixer.modules() if isinstance(part, Rotary) for x in (part.cos, part.sin)]
    left_out = storages([*mixer.parameters(), hidden, source, *tables])
    del output
    return sum(size for storage, size in saved.items() if storage not in left_out)


def held_for_decoding(state: State, side: QueriesKeys | None) -> int:
    """Bytes of the storages under a state, and under the side stream's queries and keys."""
    return sum(storages([*_tensors(state), *(side or ())]).values())


def storages(tensors: Iterable[Tensor]) -> dict[StorageWeakRef, int]:
    """The storages under `tensors`, each once, and their bytes."""
    return {StorageWeakRef(x.untyped_storage()): x.untyped_storage().nbytes() for x in tensors}


def _tensors(held: object) -> Iterator[Tensor]:
    """Every tensor that a state holds, under whatever name."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from _tensors(value)
    elif isinstance(held, State):
        yield from _tensors(vars(held))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
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
    os.environ["KINETO_LOG_LEVEL"] = "6"  # beyond all levels: the profiler logs each start and stop
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    assert profile.kineto_results is not None
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
