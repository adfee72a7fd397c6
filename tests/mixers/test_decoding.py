"""Whole models one token at a time: what is kept of the past is all that is needed of it, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.costs import state_bytes
from deconattn.decoder import LanguageModel
from deconattn.mixers.cache import DecodingState
from tests.conftest import slow
from tests.mixers.cases import (
    FLOAT64,
    LENGTHS,
    assert_near,
    build,
    config_of,
    each_kind,
    each_length,
    each_pair,
    tokens,
)

# Tokens that are taken in at once before the others follow singly: steps lead over 18, from where `approximate` keeps sums
# (at 257 the prefill is beyond it), and over 256, where keys and values get a new page; chunks lead over 64.
PREFILLS = dict(zip(LENGTHS, (1, 1, 1, 16, 230), strict=True))


def decode(model: LanguageModel, ids: Tensor, state: DecodingState, size: int = 1) -> Tensor:
    """Logits (B, n, V) of n more tokens a row, `size` at a time."""
    return torch.cat([model.lm_head(model.model(some, None, state)) for some in ids.split(size, dim=1)], dim=1)


@each_length
@each_kind
@torch.no_grad()
def test_prefill_and_decode_are_one_forward(variant: str, layout: str, heads: str, length: int) -> None:
    model, _ = build(config_of(variant, layout, heads))
    ids, first = tokens(3, length), PREFILLS[length]
    expected, state = model.eval()(ids), model.model.new_state()
    assert_near(model.lm_head(model.model(ids[:, :first], None, state)), expected[:, :first], FLOAT64, "prefill:")
    if first < length:
        assert_near(decode(model, ids[:, first:], state), expected[:, first:], FLOAT64, "decode:")


@pytest.mark.parametrize("size", [7, *slow(2, 40)])
@each_kind
@torch.no_grad()
def test_a_prompt_may_be_taken_in_by_chunks(variant: str, layout: str, heads: str, size: int) -> None:
    """Behind an empty state, behind rows of equal and of unequal length; sums begin at the edge of a chunk and inside one."""
    model, _ = build(config_of(variant, layout, heads))
    ids = tokens(3, 83)
    expected, state = model.eval()(ids), model.model.new_state()
    assert_near(decode(model, ids, state, size), expected, FLOAT64, "chunks:")
    lengths, state = (9, 2, 5), model.model.new_state()
    model.model(ids[:, :9], None, state, torch.tensor(lengths))
    ahead = torch.stack([row[n : n + 74] for row, n in zip(ids, lengths, strict=True)])
    found = decode(model, ahead, state, size)
    for b, n in enumerate(lengths):
        assert_near(found[b], expected[b, n : n + 74], FLOAT64, f"row {b}:")


@pytest.mark.parametrize("lengths", [(5, 1, 9), (40, 3, 22)], ids=["short", "long"])
@each_kind
@torch.no_grad()
def test_rows_of_unequal_length_repeated_and_in_another_order(
    variant: str, layout: str, heads: str, lengths: tuple[int, ...]
) -> None:
    """Each row decodes as it would alone, then as the row whose past it has been given; other states are left alone.

    States that are made under inference_mode are extended outside it.
    """
    model, _ = build(config_of(variant, layout, heads))
    ids, state, order = tokens(3, 64), model.model.new_state(), [2, 0, 1, 2]
    with torch.inference_mode():
        model.eval().model(ids[:, : max(lengths)], None, state, torch.tensor(lengths))
    ahead = torch.stack([row[n : n + 8] for row, n in zip(ids, lengths, strict=True)])
    found = decode(model, ahead, state)
    with torch.inference_mode():
        state.select(torch.tensor(order))
    after = tokens(4, 12, seed=5)
    again = decode(model, after, state)
    for b, n in enumerate(lengths):
        alone = model(ids[b : b + 1, : n + 8])[0, n:]
        assert_near(found[b], alone, FLOAT64, f"row {b}:")
    for b, row in enumerate(order):
        n = lengths[row] + 8
        alone = model(torch.cat([ids[row, :n], after[b]])[None])[0, n:]
        assert_near(again[b], alone, FLOAT64, f"row {b}, once row {row}:")


@each_pair
@torch.no_grad()
def test_tokens_taken_back_are_forgotten(variant: str, layout: str, heads: str) -> None:
    """Or, from sums, refused in plain words; as is taking back more than there are."""
    model, _ = build(config_of(variant, layout, heads))
    ids, state = tokens(2, 30), model.model.new_state()
    model.eval().model(ids[:, :12], None, state)
    if not state.croppable:
        with pytest.raises(ValueError, match="running sums"):
            state.crop(4)
        return
    state.crop(4)
    other = torch.cat([ids[:, :8], ids[:, 20:26]], dim=1)
    assert_near(decode(model, other[:, 8:], state), model(other)[:, 8:], FLOAT64)
    with pytest.raises(ValueError, match="15 tokens cannot be taken back: the shortest row has seen 14"):
        state.crop(15)


@each_pair
@torch.no_grad()
def test_under_autocast_states_keep_float32_sums(variant: str, layout: str, heads: str) -> None:
    """And each token has the logits of one forward over all; `approximate` turns to sums in the prompt and behind it."""
    config = config_of(variant, layout, heads)
    model, ids = build(config, dtype=torch.float32)[0].eval(), tokens(2, 40)
    with torch.autocast("cpu", torch.bfloat16):
        whole = model(ids).float()
        for prompt in (7, 33):
            state, stepped = model.model.new_state(), []
            for part, size in ((ids[:, :prompt], prompt), (ids[:, prompt:], 1)):
                stepped.append(decode(model, part, state, size).float())
                tensors = [pair for layer in state.layers for pair in layer.tensors.items()]
                wide = [x.dtype for name, x in tensors if name in ("maximum", "sums")]
                assert set(wide) <= {torch.float32}, "rounded sums"
            assert (torch.cat(stepped, dim=1) - whole).norm() < 2e-2 * whole.norm()
    assert state.nbytes() == state_bytes(ModelConfig(**config), 2, 40, itemsize=2)
