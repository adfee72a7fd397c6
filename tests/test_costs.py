"""Cost formulas held to what PyTorch counts, to what autograd holds, and to the bytes that decoding keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deconattn import costs, mixers
from deconattn.mixers import _rotary
from deconattn.mixers._contract import Mixer
from deconattn.mixers._costs import Costs
from deconattn.mixers._scores import side_positions
from deconattn.mixers._states import Seen, State, paged
from deconattn.mixers._taylor import features, switch
from deconattn.model import LanguageModel, ModelConfig

VARIANTS = pytest.mark.parametrize("variant", mixers.names())
GROUPS = pytest.mark.parametrize("kv_heads", [4, 2, 1])
LENGTHS = (1, 31, 127, 128, 257, 1000, 3000)
BATCH = 3


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def config_of(variant: str, kv_heads: int = 4, **fields: Any) -> ModelConfig:
    """Heads of 16: approximate turns to sums at 162 tokens."""
    shape = {"vocab_size": 67, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 1, "rope_theta": 1e3}
    sizes = {"num_attention_heads": 4, "num_key_value_heads": kv_heads, "max_position_embeddings": 4096}
    return ModelConfig(**{**shape, **sizes, "variant": variant, **fields})


def counting() -> FlopCounterMode:
    """A counter that also knows the one product in place, which PyTorch's passes over."""
    known = {torch.ops.aten.baddbmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2]}
    return FlopCounterMode(display=False, custom_mapping=known)


def costs_of(config: ModelConfig, length: int, batch: int = BATCH, itemsize: int = 4) -> Costs:
    return mixers.find(config.variant).costs(config, batch, length, itemsize)


def inputs(mixer: Mixer, batch: int, length: int, **kind: Any) -> tuple[Tensor, Tensor]:
    hidden = torch.randn(batch, length, 64, **kind)
    if mixer.qk_source == "hidden":
        return hidden, hidden
    return hidden, torch.randn(1 if mixer.qk_source == "side" else batch, length, 64, **kind)


def stepper(mixer: Mixer, length: int, **kind: Any):
    """A state of `length` − 1 tokens, the queries and keys of a side stream, and the step that adds one token."""
    hidden, source = inputs(mixer, BATCH, length, **kind)
    state, side = mixer.new_state(), None
    if mixer.qk_source == "side":
        side = mixer.queries_keys(inputs(mixer, 1, side_positions(mixer.config, length), **kind)[1])
        mixer(hidden[:, :-1], tuple(x[:, :, : length - 1] for x in side), state)
    else:
        mixer(hidden[:, :-1], source[:, :-1], state)
    seen = Seen(torch.full((BATCH,), length - 1, device=kind.get("device")), length - 1, True)
    return state, side, lambda: mixer.step(hidden[:, -1:], side or source[:, -1:], state, seen)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}


def held(state: State) -> list[Tensor]:
    """Tensors of a state, wherever it keeps them."""
    values = [*vars(state).values(), *state.tensors.values()]
    inner = [x for value in values if isinstance(value, State) for x in held(value)]
    return [x for x in values if isinstance(x, Tensor)] + inner


@GROUPS
@VARIANTS
def test_prefill_flops_are_those_counted(variant: str, kv_heads: int) -> None:
    for length in LENGTHS:
        for batch in (1, BATCH):
            config = config_of(variant, kv_heads)
            with torch.device("meta"), torch.no_grad():
                mixer = mixers.find(variant)(config)
                hidden, source = inputs(mixer, batch, length)
                with counting() as counter:
                    mixer(hidden, source)
            assert counter.get_total_flops() == costs_of(config, length, batch).prefill_flops, (length, batch)


@GROUPS
@VARIANTS
def test_decode_flops_are_those_counted(variant: str, kv_heads: int) -> None:
    """Below approximate's switch at 162 tokens, at it, and beyond."""
    for length in (2, 31, 127, 162, 164, 257, 1000, 3000):
        config = config_of(variant, kv_heads)
        with torch.device("meta"), torch.no_grad():
            step = stepper(mixers.find(variant)(config), length)[2]
            with counting() as counter:
                step()
        assert counter.get_total_flops() == costs_of(config, length).decode_flops, length


def test_the_step_that_turns_keys_into_sums_costs_them_once() -> None:
    config = config_of("approximate", 2)
    most = switch(config.head_dim)
    assert most == 162
    with torch.device("meta"), torch.no_grad():
        step = stepper(mixers.find("approximate")(config), most + 1)[2]
        with counting() as counter:
            step()
    turning = 2 * BATCH * 2 * features(16) * 17 * paged(most)
    assert counter.get_total_flops() == costs_of(config, most + 1).decode_flops + turning


@pytest.mark.parametrize("qk_norm", [False, True])
@GROUPS
@VARIANTS
def test_activation_bytes_are_those_that_autograd_holds(variant: str, kv_heads: int, qk_norm: bool) -> None:
    for length in (1, 2, 31, 32, 33, 127, 128, 257, 600):
        for batch in (1, BATCH):
            config = config_of(variant, kv_heads, qk_norm=qk_norm, attention_bias=not qk_norm)
            mixer = mixers.find(variant)(config)
            hidden, source = inputs(mixer, batch, length, requires_grad=True)
            saved: list[Tensor] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):  # noqa: B023
                output = mixer(hidden, source)
            apart = storages(
                [*mixer.parameters(), hidden, source, *(x for pair in _rotary._TABLES.values() for x in pair)]
            )
            found = storages(saved)
            assert output.untyped_storage().data_ptr() not in found
            total = sum(size for place, size in found.items() if place not in apart)
            assert total == costs_of(config, length, batch).activation_bytes, (length, batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2])
@VARIANTS
def test_state_bytes_are_those_held(variant: str, kv_heads: int, dtype: torch.dtype) -> None:
    """At three lengths, off and on a page, on both sides of approximate's switch; the side stream's q and k once."""
    for length in (2, 64, 200):
        config = config_of(variant, kv_heads)
        with torch.no_grad():
            state, side, step = stepper(mixers.find(variant)(config).to(dtype), length, dtype=dtype)
            step()
        beside = sum(x.numel() * x.element_size() for x in side or ())
        expected = costs_of(config, length, itemsize=dtype.itemsize).state_bytes
        assert state.nbytes() + beside == expected, length
        assert sum(storages([*held(state), *(side or ())]).values()) == expected, length


@pytest.mark.parametrize("layout", ["uniform", "even"])
@VARIANTS
def test_a_whole_model_holds_what_its_layers_state(variant: str, layout: str) -> None:
    config = config_of(variant, 2, num_hidden_layers=4, layout=layout, max_position_embeddings=256)
    model = LanguageModel(config).eval()
    for length in (5, 100, 190):
        model.model.side_memory = type(model.model.side_memory)()
        ids = torch.randint(config.vocab_size, (BATCH, length))
        state = model.model.new_state()
        with torch.no_grad():
            model.model(ids[:, :-3], state=state)
            for token in ids[:, -3:].split(1, dim=1):
                model.model(token, state=state)
        side = [x for pair in state.side or [] if pair for x in pair]
        tensors = [x for layer in state.layers for x in held(layer)]
        expected = costs.state_bytes(config, BATCH, length)
        assert state.nbytes() == expected, length
        assert sum(storages([*tensors, *side]).values()) == expected, length
    readers = {"uniform": 4, "even": 2}[layout] if mixers.find(variant).qk_source == "side" else 0
    assert len(side) == 2 * readers and all(x.shape[0] == 1 for x in side)


@VARIANTS
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


@GROUPS
@VARIANTS
def test_parameters_are_those_of_the_module(variant: str, kv_heads: int) -> None:
    config = config_of(variant, kv_heads)
    mixer = mixers.find(variant)(config)
    assert mixer.parameter_count(config) == sum(x.numel() for x in mixer.parameters())


@VARIANTS
def test_causal_counts_lie_between_nothing_and_the_square(variant: str) -> None:
    one, many = (costs_of(config_of(variant), length) for length in (1, 1000))
    assert one.prefill_flops_causal == one.prefill_flops_square
    pairs = many.prefill_flops_square - many.prefill_flops_causal
    maps = 1 if mixers.find(variant).qk_source == "side" else BATCH
    assert pairs == (0 if variant in ("mlp", "nonapproximate") else 2 * 64 * (maps + BATCH) * 1000 * 999 // 2)


def test_training_flops_are_three_forwards_with_the_side_stream_as_a_row() -> None:
    config = config_of("rndembqk", num_hidden_layers=2, layout="even")
    rows, length = BATCH + 1, 100
    simple, standard = (costs_of(config_of(v), length, rows).prefill_flops_causal for v in ("rndembqk", "standard"))
    rest = 2 * 6 * rows * length * 64 * 48 + 2 * BATCH * length * 64 * 67
    assert costs.training_flops(config, BATCH, length) == 3 * (simple + standard + rest)
