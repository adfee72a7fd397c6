"""What a mixer says that it costs is what is counted: parameters, FLOPs of matrix products, bytes held by training and decoding.

`deconattn/mixers/_costs.py` has the convention. A mixer alone has heads of 16 here, one, two or four of them a key head,
and lengths on both sides of every block, segment and page, and of the 162 tokens at which `approximate` turns to sums.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from deconattn import mixers
from deconattn.costs import state_bytes
from deconattn.mixers._costs import Costs
from deconattn.model import LanguageModel, ModelConfig, parameter_count
from tests.mixers.cases import HEADS, LENGTHS, build, config_of, each_kind, each_variant, random_state, tokens
from tests.mixers.counting import (
    BATCH,
    bare,
    counted,
    defined,
    held,
    held_for_backward,
    prefill,
    stepper,
    storages,
)
from tests.reference import naive
from tests.reference.parameters import BUFFERS, attention_size

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = (1, 31, 127, 128, 257, 1000, 3000)
each_number_of_keys = pytest.mark.parametrize("kv_heads", [4, 2, 1])


def sized(variant: str, kv_heads: int, **fields: object) -> ModelConfig:
    sizes = {"hidden_size": 64, "num_key_value_heads": kv_heads, "max_position_embeddings": 4096}
    return ModelConfig(**config_of(variant, **sizes, **fields))


def stated(config: ModelConfig, batch: int, length: int) -> Costs:
    return mixers.find(config.variant).costs(config, batch, length)


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
    mixer, standard = mixers.find(variant).parameter_count(config), attention_size(fields)
    assert mixer == sum(parameter.numel() for parameter in mixers.find(variant)(config).parameters())
    if variant in naive.VARIANTS:  # held equal; the width of `mlp` as nearly as it can be
        assert abs(mixer - standard) <= (1.5 * config.hidden_size if variant == "mlp" else 0)


@each_number_of_keys
@each_variant
def test_prefill_flops_are_those_counted(variant: str, kv_heads: int) -> None:
    """On meta tensors, where PyTorch's counter knows the fused kernel too."""
    config = sized(variant, kv_heads)
    for length in LONG:
        for batch in (1, BATCH):
            assert stated(config, batch, length).prefill_flops == prefill(bare(config), batch, length), (length, batch)


@each_number_of_keys
@each_variant
def test_square_and_causal_flops_are_those_of_the_definition(variant: str, kv_heads: int) -> None:
    """So many a position and so many a pair: L² pairs in the square, and j ≤ i counted one by one."""
    config = sized(variant, kv_heads)
    for batch in (1, BATCH):
        a_position, a_pair = defined(bare(config), batch)
        for length in LONG:
            costs, causal = asdict(stated(config, batch, length)), sum(i + 1 for i in range(length))
            for name, pairs in (("square", length**2), ("causal", causal)):
                flops = costs[f"prefill_flops_{name}"]
                assert flops == a_position * length + a_pair * pairs, f"{name}, {length} tokens, batch {batch}"


@each_number_of_keys
@each_variant
def test_decode_flops_are_those_counted(variant: str, kv_heads: int) -> None:
    config = sized(variant, kv_heads)
    for length in (2, 31, 127, 162, 164, 257, 1000, 3000):
        found = counted(stepper(bare(config), length)[2])
        assert stated(config, BATCH, length).decode_flops == found, f"a step, {length} tokens with it"


@pytest.mark.parametrize("head", ["bias", "norm"])
@each_number_of_keys
@each_variant
def test_activation_bytes_are_those_that_autograd_holds(variant: str, kv_heads: int, head: str) -> None:
    config = sized(variant, kv_heads, **HEADS[head])
    for length in (1, 2, 31, 32, 33, 127, 128, 257, 600):
        for batch in (1, BATCH):
            found = held_for_backward(mixers.find(variant)(config), batch, length)
            assert stated(config, batch, length).activation_bytes == found, (
                f"activations, {length} tokens, batch {batch}"
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_kind
@torch.no_grad()
def test_bytes_of_states_are_those_held(variant: str, layout: str, heads: str, dtype: torch.dtype) -> None:
    """Of a whole model, after a prefill of each length and after one token more; the side stream's q and k once a layer."""
    fields = config_of(variant, layout, heads)
    model, config = build(fields, dtype=dtype)[0].eval(), ModelConfig(**fields)
    for length in LENGTHS:
        model.model.side_memory = type(model.model.side_memory)()
        state = model.model.new_state()
        for seen, n in enumerate((length, 1)):
            model.model(tokens(BATCH, n), None, state)
            formula = [
                block.self_attn.costs(config, BATCH, length + seen, dtype.itemsize).state_bytes
                for block in model.model.layers
            ]
            assert sum(formula) == state.nbytes(), f"{length} + {seen} tokens"
            assert state_bytes(config, BATCH, length + seen, dtype.itemsize) == sum(formula)
            side = [x for pair in state.side or [] if pair for x in pair]
            behind = storages([*side, *(x for layer in state.layers for x in held(layer))])
            assert sum(behind.values()) == sum(formula), f"storages, {length} + {seen} tokens"
