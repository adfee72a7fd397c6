"""What a mixer says that it costs is what is counted: parameters, FLOPs of matrix products, bytes of states."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deconattn import mixers
from deconattn.costs import layer_costs
from deconattn.model import LanguageModel, ModelConfig, parameter_count
from tests.mixers.cases import (
    HEADS,
    LENGTHS,
    build,
    config_of,
    each_group,
    each_kind,
    each_length,
    each_variant,
    random_state,
    tokens,
)
from tests.reference import naive
from tests.reference.parameters import BUFFERS, attention_size

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = 3


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


@each_length
@each_group
@each_variant
def test_flops_are_those_counted(variant: str, heads: str, length: int) -> None:
    """PyTorch's counter on meta tensors, where it knows the fused kernel too; its convention is a multiply-add = 2."""
    config = ModelConfig(**config_of(variant, heads=heads))
    with torch.device("meta"), torch.no_grad():
        mixer, counter = mixers.find(variant)(config), FlopCounterMode(display=False)
        hidden = torch.empty(BATCH, length, config.hidden_size)
        source = hidden[:1] if mixer.qk_source == "side" else hidden
        with counter:
            mixer(hidden, source)
    costs = mixer.costs(config, BATCH, length)
    assert costs.prefill_flops == counter.get_total_flops()
    assert costs.prefill_flops_causal <= costs.prefill_flops_square


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_kind
@torch.no_grad()
def test_bytes_of_states_are_those_held(variant: str, layout: str, heads: str, dtype: torch.dtype) -> None:
    """After a prefill of each length, and after one token more."""
    fields = config_of(variant, layout, heads)
    model, config = build(fields, dtype=dtype)[0].eval(), ModelConfig(**fields)
    for length in LENGTHS:
        state = model.model.new_state()
        for seen, n in enumerate((length, 1)):
            model.model(tokens(BATCH, n), None, state)
            formula = [
                block.self_attn.costs(config, BATCH, length + seen, dtype.itemsize).state_bytes
                for block in model.model.layers
            ]
            assert sum(formula) == state.nbytes(), f"{length} + {seen} tokens"
        if dtype == torch.float32:
            assert formula == [costs.state_bytes for costs in layer_costs(config, BATCH, length + 1)]
