"""A trained model as a mode of evaluation reads it (method.md, Evaluation)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deconattn import mixers


@contextmanager
def in_mode(model: Any, mode: str) -> Iterator[None]:
    """Until the context ends, `model` is as "full", "skip", "skip_mixer" or "reweighted" has it.

    For skips its `skip` is set. Reweighted, the relaxed layers of its `model`, a `Decoder`, have mixers of the variant that
    `mixers.REWEIGHTED` names, with the same tensors.
    """
    if mode == "reweighted":
        with _reweighted(model.model):
            yield
        return
    model.skip = None if mode == "full" else mode
    try:
        yield
    finally:
        model.skip = None


@contextmanager
def _reweighted(decoder: Any) -> Iterator[None]:
    blocks = [block for block in decoder.blocks() if not block.standard]
    trained = [block.self_attn for block in blocks]
    other = mixers.find(mixers.REWEIGHTED[decoder.config.variant])
    for block in blocks:
        mixer = other(decoder.config).eval()
        mixer.load_state_dict(block.self_attn.state_dict(), assign=True)
        block.self_attn = mixer
    try:
        yield
    finally:
        for block, mixer in zip(blocks, trained, strict=True):
            block.self_attn = mixer
