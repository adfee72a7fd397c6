"""What PyTorch counts and holds of one mixer: FLOPs of products, storages that decoding keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.mixers.base import Mixer, QKVMixer
from deconattn.mixers.cache import CacheLengths, State, side_positions
from tests.mixers.cases import normal

BATCH = 3


def counted(work: Callable[[], object]) -> int:
    """FLOPs of the products in `work`, by a counter that also knows the one in place, which PyTorch's passes over."""
    known = {torch.ops.aten.baddbmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return counter.get_total_flops()


def bare(config: ModelConfig) -> Mixer:
    """A mixer without numbers, on the meta device, where the counter knows the fused kernel too."""
    with torch.device("meta"):
        return mixers.find(config.variant)(config)


def inputs(mixer: Mixer, batch: int, length: int, **kind: Any) -> tuple[Tensor, Tensor]:
    """Normalised inputs (B, L, d) and what queries and keys are read from: the same, other vectors, or one row for all."""
    kind = {"device": next(mixer.parameters()).device, "dtype": torch.float32, **kind}

    def drawn(rows: int, seed: int) -> Tensor:
        size = (rows, length, mixer.config.hidden_size)
        return torch.empty(size, **kind) if kind["device"].type == "meta" else normal(*size, seed=seed).to(**kind)

    hidden = drawn(batch, 4)
    if mixer.qk_source == "hidden":
        return hidden, hidden
    return hidden, drawn(1 if mixer.qk_source == "side" else batch, 5)


def prefill(mixer: Mixer, batch: int, length: int) -> int:
    """FLOPs of the fast form."""
    return counted(lambda: mixer(*inputs(mixer, batch, length)))


def defined(mixer: Mixer, batch: int) -> tuple[int, int]:
    """FLOPs a position and FLOPs a pair of positions of the definition: A materialised, then A times the values; uses `mixer` up.

    A pair costs what A's own scores take as products, once a map, and 2·d a row for the values. Where A is made of no products
    and the fast form's count does not grow with the square of the length, nothing is paired: the values are summed, one number a
    key, or not mixed.
    """
    n = 64
    of_map = [counted(lambda n=n: mixer.attention_map(inputs(mixer, 1, n)[1])) for n in (n, 2 * n)]
    rows = 1 if mixer.qk_source == "side" else batch
    a_pair, left = divmod(rows * (of_map[1] - 2 * of_map[0]), 2 * n * n)
    assert not left, "products of a map are so many a position and so many a pair"
    if a_pair or prefill(mixer, batch, 4096) > 8 * prefill(mixer, batch, 1024):
        a_pair += 2 * batch * mixer.config.hidden_size
    if isinstance(mixer, QKVMixer):
        mixer.mix = lambda q, k, v: mixer.repeat(v)  # leaves the projections
        return prefill(mixer, batch, 1), a_pair
    return prefill(mixer, batch, 1) - a_pair, a_pair


def stepper(mixer: Mixer, length: int, **kind: Any) -> tuple[State, tuple[Tensor, Tensor] | None, Callable[[], Tensor]]:
    """A state of `length` − 1 tokens, the queries and keys of a side stream, and the step that adds one token."""
    hidden, source = inputs(mixer, BATCH, length, **kind)
    state, side, none = mixer.new_state(), None, CacheLengths.none(BATCH, hidden.device)
    if isinstance(mixer, QKVMixer) and mixer.qk_source == "side":
        positions = side_positions(length, mixer.config.max_position_embeddings)
        side = mixer.queries_keys(inputs(mixer, 1, positions, **kind)[1])
    mixer.step(hidden[:, :-1], side or source[:, :-1], state, none)
    past = none.after(length - 1)
    return state, side, lambda: mixer.step(hidden[:, -1:], side or source[:, -1:], state, past)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage behind `tensors`, by where it lies."""
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}


def held(state: State) -> list[Tensor]:
    """Tensors of a state, wherever it keeps them."""
    values = [*vars(state).values(), *state.tensors.values()]
    inner = [x for value in values if isinstance(value, State) for x in held(value)]
    return [x for x in values if isinstance(x, Tensor)] + inner
