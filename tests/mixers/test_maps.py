"""One mixer: its map, and that forward and step are that map applied to the values."""

from __future__ import annotations

import pytest
import torch

from deconattn.mixers.cache import CacheLengths
from tests.mixers.cases import (
    BF16,
    FLOAT64,
    SENSITIVE,
    assert_near,
    build,
    config_of,
    definition,
    each_group,
    each_kind,
    each_length,
    each_variant,
    filled,
    joined,
    normal,
    reference,
    tokens,
)
from tests.mixers.counting import BATCH, inputs
from tests.reference import naive
from tests.reference.parameters import complete


@each_length
@each_group
@each_variant
@torch.no_grad()
def test_map_times_values_is_forward_is_step_by_step(variant: str, heads: str, length: int) -> None:
    """The map is the package's own here, the values and the output projection the reference's."""
    config = config_of(variant, heads=heads)
    mixer, weights = filled(config)
    hidden, source = inputs(mixer, BATCH, length, dtype=torch.float64)
    attention = mixer.attention_map(source)
    if attention is None:
        expected = torch.cat([mixer(hidden[:, i : i + 1], source[:, i : i + 1]) for i in range(length)], dim=1)
    else:
        assert attention.shape == (len(source), config["num_attention_heads"], length, length)
        assert_near(attention.sum(-1), torch.ones_like(attention[..., 0]), FLOAT64, "rows of the map:")
        assert not attention.triu(1).any(), "a key after its query has a weight"
        maps = attention.expand(BATCH, -1, -1, -1)
        expected = torch.stack([naive.mix(a, x, weights, complete(config)) for a, x in zip(maps, hidden, strict=True)])
    assert_near(mixer(hidden, source), expected, FLOAT64, "forward:")

    side = mixer.queries_keys(source) if mixer.qk_source == "side" else None
    for size in (1, 16):
        state, past, mixed = mixer.new_state(), CacheLengths.none(BATCH, hidden.device), []
        for new, from_source in zip(hidden.split(size, dim=1), source.split(size, dim=1), strict=True):
            mixed.append(mixer.step(new, side or from_source, state, past))
            past = past.after(new.shape[1])
        assert_near(torch.cat(mixed, dim=1), expected, FLOAT64, "steps:" if size == 1 else "chunks:")


@pytest.mark.parametrize(
    ("dtype", "budget"), [(torch.float64, FLOAT64), (torch.bfloat16, 3 * BF16)], ids=["float64", "bf16"]
)
@each_variant
def test_long_texts(variant: str, dtype: torch.dtype, budget: float) -> None:
    """Several blocks of every fast form, the last one incomplete, and a scan of four levels; weights in bf16, without autocast.

    The output, and the gradient of all weights as one vector (see `test_precision.py`).
    """
    config = config_of(variant, heads="grouped", hidden_size=8, num_attention_heads=2, num_key_value_heads=1)
    config["max_position_embeddings"] = length = 1100
    budget *= SENSITIVE.get(variant, 1)
    mixer, weights = filled(config)
    hidden, source = (x.to(dtype) for x in inputs(mixer, 1, length, dtype=torch.float64))
    leaves = {name: w.to(dtype).double().requires_grad_() for name, w in weights.items()}
    wide = hidden[0].double(), source[0].double()
    expected = naive.mixer_layer(variant, *wide, leaves, complete(config), definition(config))[0]
    found = mixer.to(dtype)(hidden, source)[0]
    assert found.dtype == dtype
    assert_near(found.detach(), expected.detach(), budget, "output:")
    direction = normal(*found.shape, seed=3).to(dtype)
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    truths = torch.autograd.grad(expected, [leaves[f"self_attn.{name}"] for name in names], direction.double())
    assert_near(joined(torch.autograd.grad(found, parameters, direction)), joined(truths), budget, "gradient:")


@each_kind
@torch.no_grad()
def test_a_models_maps_and_raw_scores(variant: str, layout: str, heads: str) -> None:
    """What the analysis reads of every layer, in a batch and beside a side stream."""
    config, ids = config_of(variant, layout, heads), tokens(2, 33)
    model, state = build(config)
    trace = reference(config, state, ids)
    visible = torch.ones(33, 33, dtype=torch.bool).tril()
    decoder = model.model
    embeddings = x = decoder.embed(ids)
    for block, found, wanted, scores in zip(
        decoder.layers, decoder.attention_maps(ids), trace.maps, trace.scores, strict=True
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
