"""What a mixer says that it costs is what is counted: parameters, FLOPs of matrix products, bytes held by decoding.

`deconattn/mixers/formulas.py` has the convention. A mixer alone has heads of 16 here, one, two or four of them a key head,
and lengths on both sides of every block, segment and page, and of the 162 tokens at which `approximate` turns to sums.
"""

from __future__ import annotations

import pytest
import torch

from deconattn.config import ModelConfig
from deconattn.costs import mixer_costs, mixer_parameters, state_bytes
from deconattn.decoder import LanguageModel, parameter_count
from tests.conftest import slow
from tests.mixers.cases import HEADS, LENGTHS, build, config_of, each_kind, each_variant, random_state, tokens
from tests.mixers.counting import BATCH, bare, counted, defined, held, prefill, stepper, storages
from tests.reference import naive
from tests.reference.parameters import BUFFERS, attention_size


@pytest.mark.parametrize("head", HEADS)
@each_kind
def test_parameters_are_those_counted(variant: str, layout: str, heads: str, head: str) -> None:
    """Of the model, by names and shapes too."""
    fields = config_of(variant, layout, heads, **HEADS[head])
    config = ModelConfig(**fields)
    model = LanguageModel(config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in random_state(fields, 0).items()}
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())
    assert not set(BUFFERS) & {name for name, _ in model.named_parameters()}
    mixer, standard = mixer_parameters(config), attention_size(fields)
    if variant in naive.VARIANTS:  # held equal; the width of `mlp` as nearly as it can be
        assert abs(mixer - standard) <= (1.5 * config.hidden_size if variant == "mlp" else 0)


@pytest.mark.parametrize("kv_heads", [2, *slow(4, 1)])
@each_variant
def test_flops_are_those_counted_and_those_of_the_definition(variant: str, kv_heads: int) -> None:
    """On meta tensors, where PyTorch's counter knows the fused kernel too.

    The definition's are so many a position and so many a pair: L² pairs in the square, and j ≤ i counted one by one.
    """
    sizes = {"hidden_size": 64, "num_key_value_heads": kv_heads, "max_position_embeddings": 4096}
    config = ModelConfig(**config_of(variant, **sizes))
    for batch in (1, BATCH):
        a_position, a_pair = defined(bare(config), batch)
        for length in (1, 31, 127, 128, 257, 1000, 3000):
            found, where = mixer_costs(config, batch, length), f"{length} tokens, batch {batch}"
            assert found.prefill_flops == prefill(bare(config), batch, length), f"prefill, {where}"
            square, causal = (a_position * length + a_pair * n for n in (length**2, sum(range(length + 1))))
            assert found.prefill_flops_square == square, f"square, {where}"
            assert found.prefill_flops_causal == causal, f"causal, {where}"
    for length in (2, 31, 127, 162, 164, 257, 1000, 3000):
        step = counted(stepper(bare(config), length)[2])
        assert mixer_costs(config, BATCH, length).decode_flops == step, f"a step, {length} tokens with it"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_kind
@torch.no_grad()
def test_bytes_of_states_are_those_held(variant: str, layout: str, heads: str, dtype: torch.dtype) -> None:
    """Of a whole model, after a prefill of each length and after one token more; the side stream's q and k once a layer."""
    fields = config_of(variant, layout, heads)
    model, config = build(fields, dtype=dtype)[0].eval(), ModelConfig(**fields)
    for length in LENGTHS:
        model.model.side_memory.clear()
        state = model.model.new_state()
        for seen, n in enumerate((length, 1)):
            model.model(tokens(BATCH, n), None, state)
            formula = state_bytes(config, BATCH, length + seen, dtype.itemsize)
            assert formula == state.nbytes(), f"{length} + {seen} tokens"
            side = [x for pair in state.side or [] if pair for x in pair]
            behind = storages([*side, *(x for layer in state.layers for x in held(layer))])
            assert sum(behind.values()) == formula, f"storages, {length} + {seen} tokens"
