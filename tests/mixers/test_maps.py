"""One mixer: its map, and that forward and step are that map applied to the values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deconattn.mixers._contract import Mixer
from deconattn.mixers._states import Seen
from tests.mixers.cases import (
    FLOAT64,
    assert_near,
    build,
    config_of,
    definition,
    each_group,
    each_kind,
    each_length,
    each_variant,
    load,
    mixer_of,
    mixer_weights,
    normal,
    tokens,
)
from tests.reference import naive
from tests.reference.parameters import complete

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = 3


def inputs(mixer: Mixer, length: int) -> tuple[Tensor, Tensor]:
    """Normalised inputs (3, L, d) and what queries and keys are read from: the same, other vectors, or one row for all."""
    hidden = normal(BATCH, length, mixer.config.hidden_size, seed=1)
    if mixer.qk_source == "hidden":
        return hidden, hidden
    return hidden, normal(1 if mixer.qk_source == "side" else BATCH, length, mixer.config.hidden_size, seed=2)


def filled(config: dict[str, Any]) -> tuple[Mixer, dict[str, Tensor]]:
    """A mixer with random weights, and those weights."""
    mixer, weights = mixer_of(config), mixer_weights(config)
    load(mixer, {name.removeprefix("self_attn."): tensor for name, tensor in weights.items()})
    return mixer, weights


@each_length
@each_group
@each_variant
@torch.no_grad()
def test_rows_sum_to_one_and_see_no_future(variant: str, heads: str, length: int) -> None:
    config = config_of(variant, heads=heads)
    mixer, _ = filled(config)
    attention = mixer.attention_map(inputs(mixer, length)[1])
    if attention is None:
        return
    rows = 1 if mixer.qk_source == "side" else BATCH
    assert attention.shape == (rows, config["num_attention_heads"], length, length)
    assert_near(attention.sum(-1), torch.ones_like(attention[..., 0]), FLOAT64)
    assert not attention.triu(1).any(), "a key after its query has a weight"


@each_length
@each_group
@each_variant
@torch.no_grad()
def test_map_times_values_is_forward_is_step_by_step(variant: str, heads: str, length: int) -> None:
    """The map is the package's own here, the values and the output projection the reference's."""
    config = config_of(variant, heads=heads)
    mixer, weights = filled(config)
    hidden, source = inputs(mixer, length)
    attention = mixer.attention_map(source)
    if attention is None:
        expected = torch.cat([mixer(hidden[:, i : i + 1], source[:, i : i + 1]) for i in range(length)], dim=1)
    else:
        maps = attention.expand(BATCH, -1, -1, -1)
        expected = torch.stack([naive.mix(a, x, weights, complete(config)) for a, x in zip(maps, hidden, strict=True)])
    assert_near(mixer(hidden, source), expected, FLOAT64, "forward:")

    side = mixer.queries_keys(source) if mixer.qk_source == "side" else None
    state = mixer.new_state()
    first = side or source[:, :1]
    mixed = [mixer(hidden[:, :1], tuple(x[:, :, :1] for x in side) if side else first, state)]
    for i in range(1, length):
        seen = Seen(torch.full((BATCH,), i), i, True)
        mixed.append(mixer.step(hidden[:, i : i + 1], side or source[:, i : i + 1], state, seen))
    assert_near(torch.cat(mixed, dim=1), expected, FLOAT64, "steps:")


@each_variant
def test_long_texts(variant: str) -> None:
    """Several blocks of every fast form, the last one incomplete, and a scan of three levels."""
    config = config_of(variant, heads="grouped", hidden_size=8, num_attention_heads=2, num_key_value_heads=1)
    config["max_position_embeddings"] = length = 1100
    mixer, weights = filled(config)
    hidden, source = (x[:1] for x in inputs(mixer, length))
    other, leaves = definition(config), {name: w.clone().requires_grad_() for name, w in weights.items()}
    expected = naive.mixer_layer(variant, hidden[0], source[0], leaves, complete(config), other)[0]
    found = mixer(hidden, source)[0]
    assert_near(found.detach(), expected.detach(), FLOAT64)
    direction = normal(*found.shape, seed=3)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in mixer.named_parameters():
        gradient = leaves[f"self_attn.{name}"].grad
        assert parameter.grad is not None and gradient is not None
        assert_near(parameter.grad, gradient, FLOAT64, name)


@each_kind
@torch.no_grad()
def test_a_models_maps_and_raw_scores(variant: str, layout: str, heads: str) -> None:
    """What the analysis reads of every layer, in a batch and beside a side stream."""
    config, ids = config_of(variant, layout, heads), tokens(2, 33)
    model, state = build(config)
    trace = naive.forward(config, state, ids, other=definition(config))
    visible = torch.ones(33, 33, dtype=torch.bool).tril()
    decoder = model.model
    embeddings = x = decoder.embed(ids)
    for block, found, wanted, scores in zip(
        decoder.layers, model.attention_maps(ids), trace.maps, trace.scores, strict=True
    ):
        raw = block.self_attn.raw_scores(block.mixer_inputs(x, embeddings)[1])
        if wanted is None:
            assert found is None and raw is None
        else:
            assert found.shape[0] in (1, 2)
            assert_near(found.expand_as(wanted), wanted, FLOAT64)
        if scores is not None:
            seen = scores if scores.dim() == 3 else scores[..., visible]
            assert_near(raw[-seen.shape[0] :].expand_as(seen), seen, FLOAT64)
        x = block(x, embeddings, None)
