"""What the suite of all variants (`tests/mixers/test_formulas.py`) does not say of costs: one variant's turn, and training."""

from __future__ import annotations

import pytest
import torch

from deconattn import costs, mixers
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel
from deconattn.mixers.approximate import features, switch
from deconattn.mixers.cache import paged
from deconattn.mixers.formulas import pair_flops
from tests.mixers import cases
from tests.mixers.counting import BATCH, bare, counted, stepper


def config_of(variant: str, **fields: object) -> ModelConfig:
    """Heads of 16, two a key head: approximate turns to sums at 162 tokens."""
    return ModelConfig(**cases.config_of(variant, hidden_size=64, num_key_value_heads=2, **fields))


def test_the_step_that_turns_keys_into_sums_reads_keys_and_sums_them_up_once() -> None:
    config = config_of("approximate")
    most = switch(config.head_dim)
    assert most == 162
    by_keys = pair_flops(config, BATCH, most + 1, visited=0).decode
    summing = 2 * BATCH * 2 * features(16) * 17 * paged(most)
    assert counted(stepper(bare(config), most + 1)[2]) == by_keys + summing


@pytest.mark.parametrize("variant", mixers.names())
@torch.no_grad()
def test_a_models_states_do_not_grow_with_the_texts_of_other_states(variant: str) -> None:
    """What the model keeps of its side stream reaches as far as the longest text; a state of a short one counts its own part."""
    config = config_of(variant, layout="even", max_position_embeddings=512)
    model = LanguageModel(config).eval()
    for length in (20, 300, 20, 63):
        state = model.model.new_state()
        model.model(torch.zeros(BATCH, length, dtype=torch.long), state=state)
        assert state.nbytes() == costs.state_bytes(config, BATCH, length), length
        for more in (1, 2):
            model.model(torch.zeros(BATCH, 1, dtype=torch.long), state=state)
            assert state.nbytes() == costs.state_bytes(config, BATCH, length + more), (length, more)


def test_training_flops_are_three_forwards_with_the_side_stream_as_a_row() -> None:
    """Of three layers, one of them standard, each with a feed-forward; the head reads no side stream."""
    config = config_of("rndembqk", layout="even")
    rows, length, d = BATCH + 1, 100, config.hidden_size
    simple, standard = (
        costs.mixer_costs(config, rows, length, variant=v).prefill_flops_causal for v in ("rndembqk", "standard")
    )
    rest = 3 * 6 * rows * length * d * config.intermediate_size + 2 * BATCH * length * d * config.vocab_size
    assert costs.training_flops(config, BATCH, length) == 3 * (2 * simple + standard + rest)
