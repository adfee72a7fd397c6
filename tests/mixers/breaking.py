"""Ways to break the package: each gives a function that does it through pytest's `monkeypatch`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deconattn import DeconAttnForCausalLM
from deconattn.decoding import SideMemory
from deconattn.mixers import nonapproximate
from deconattn.mixers._states import Rows, Seen, State
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.model import Block

Patch = Callable[[pytest.MonkeyPatch], None]


def exchange(owner: type | ModuleType, name: str, make: Callable[[Any], Any]) -> Patch:
    """Put make(original) in the place of `owner.name`."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, make(getattr(owner, name)))

    return patch


def both(*patches: Patch) -> Patch:
    """Several at once."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for one in patches:
            one(monkeypatch)

    return patch


def mixed(mixer: type, change: Callable[..., Tensor]) -> Patch:
    """The fast form becomes change(original, q, k, v), where `original` takes q, k, v."""
    return exchange(mixer, "mix", lambda mix: lambda self, *qkv: change(lambda *x: mix(self, *x), *qkv))


def leaking(shift: int, size: float) -> Callable[..., Tensor]:
    """A little of a later value in each output."""
    return lambda mix, q, k, v: mix(q, k, v) + size * nn.functional.pad(v, (0, 0, 0, shift))[:, :, shift:].to(v.dtype)


def of_source(change: Callable[[Block, Tensor, Tensor, Tensor], Tensor]) -> Patch:
    """What queries and keys are read from becomes change(block, x, embeddings, source)."""

    def make(original: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        def inputs(block: Block, x: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
            hidden, source = original(block, x, embeddings)
            return hidden, change(block, x, embeddings, source)

        return inputs

    return exchange(Block, "mixer_inputs", make)


def interleaved(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """RoPE that turns neighbours, not halves."""
    cos, sin = (t.repeat_interleave(2, -1) for t in tables)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)


def in_rows(buffer_at_full: Callable[[Tensor], Tensor]) -> Patch:
    """Change what keys and values hold when they grow by a page."""

    def make(append: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def growing(self: Rows, seen: Seen, **vectors: Tensor) -> list[Tensor]:
            for name in vectors:
                if seen.most == self.tensors[name].shape[2]:
                    self.tensors[name] = buffer_at_full(self.tensors[name])
            return append(self, seen, **vectors)

        return growing

    return exchange(Rows, "append", make)


def spoilt_by_use(of: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """A side stream's queries and keys, exchanged from the second use on."""

    def once(self: SideMemory, *args: Any) -> list[Any]:
        found = of(self, *args)
        self._layers = [pair and pair[::-1] for pair in found]
        return found

    return once


def chosen(index: Tensor, batch: int) -> Tensor:
    """As many rows as asked for, but not those."""
    return torch.arange(len(index), device=index.device) % batch


def unordered(select: Callable[..., None]) -> Callable[..., None]:
    """States that stay in their order."""

    def keep(self: State, index: Tensor) -> None:
        if self.tensors:
            select(self, chosen(index, len(next(iter(self.tensors.values())))))

    return keep


def plain_sums(mix: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The running mean without a running maximum."""
    weights = nonapproximate.key_scores(q, k).exp().unsqueeze(-1)
    return ((weights * v).cumsum(2) / weights.cumsum(2)).to(v.dtype)


def wrong_gradient(of: int, size: float) -> Callable[..., Tensor]:
    """The right output, with a gradient of the query (0), the key (1) or the value (2) that has something added."""

    def change(mix: Callable[..., Tensor], *qkv: Tensor) -> Tensor:
        extra = size * qkv[of]
        return mix(*qkv) + (extra - extra.detach())

    return change


def plain_step(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same in decoding: the maximum never moves from where the first token put it."""

    def unmoved(self: NonApproximate, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        maximum = state.tensors["maximum"]
        out = step(self, q, k, v, state, seen)
        state.tensors["maximum"] = maximum
        return out

    return unmoved


def without(name: str) -> Patch:
    """A checkpoint that lacks one tensor."""

    def make(save: Callable[..., None]) -> Callable[..., None]:
        def saved(self: nn.Module, folder: Path) -> None:
            save(self, folder, state_dict={n: t for n, t in self.state_dict().items() if name not in n})

        return saved

    return exchange(DeconAttnForCausalLM, "save_pretrained", make)
