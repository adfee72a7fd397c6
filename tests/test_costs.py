"""What the suite of all variants (`tests/mixers/test_formulas.py`) does not say of costs: one variant's turn, and training."""

from __future__ import annotations

import pytest
import torch

from deconattn import costs, mixers
from deconattn.mixers._costs import Costs
from deconattn.mixers._states import paged
from deconattn.mixers._taylor import features, switch
from deconattn.model import LanguageModel, ModelConfig
from tests.mixers.counting import BATCH, bare, counted, stepper


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def config_of(variant: str, kv_heads: int = 4, **fields: object) -> ModelConfig:
    """Heads of 16: approximate turns to sums at 162 tokens."""
    shape = {"vocab_size": 67, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 1, "rope_theta": 1e3}
    sizes = {"num_attention_heads": 4, "num_key_value_heads": kv_heads, "max_position_embeddings": 4096}
    return ModelConfig(**{**shape, **sizes, "variant": variant, **fields})


def costs_of(config: ModelConfig, length: int, batch: int = BATCH) -> Costs:
    return mixers.find(config.variant).costs(config, batch, length)


def test_the_step_that_turns_keys_into_sums_costs_them_once() -> None:
    config = config_of("approximate", 2)
    most = switch(config.head_dim)
    assert most == 162
    turning = 2 * BATCH * 2 * features(16) * 17 * paged(most)
    assert counted(stepper(bare(config), most + 1)[2]) == costs_of(config, most + 1).decode_flops + turning


@pytest.mark.parametrize("variant", mixers.names())
@torch.no_grad()
def test_a_models_states_do_not_grow_with_the_texts_of_other_states(variant: str) -> None:
    """What the model keeps of its side stream reaches as far as the longest text; a state of a short one counts its own part."""
    config = config_of(variant, 2, num_hidden_layers=2, layout="even", max_position_embeddings=512)
    model = LanguageModel(config).eval()
    for length in (20, 300, 20, 63):
        state = model.model.new_state()
        model.model(torch.zeros(BATCH, length, dtype=torch.long), state=state)
        assert state.nbytes() == costs.state_bytes(config, BATCH, length), length
        for more in (1, 2):
            model.model(torch.zeros(BATCH, 1, dtype=torch.long), state=state)
            assert state.nbytes() == costs.state_bytes(config, BATCH, length + more), (length, more)


def test_training_flops_are_three_forwards_with_the_side_stream_as_a_row() -> None:
    config = config_of("rndembqk", num_hidden_layers=2, layout="even")
    rows, length = BATCH + 1, 100
    simple, standard = (costs_of(config_of(v), length, rows).prefill_flops_causal for v in ("rndembqk", "standard"))
    rest = 2 * 6 * rows * length * 64 * 48 + 2 * BATCH * length * 64 * 67
    assert costs.training_flops(config, BATCH, length) == 3 * (simple + standard + rest)
