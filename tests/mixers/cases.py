"""What the suite runs on: models of every registered variant, the reference beside them, and what a difference is.

A variant that `tests/reference/naive.py` knows is held to the equation written there. Any other, a new file in
`deconattn/mixers`, is held to its own `attention_map`, in float64 and inside the reference's decoder: values, output,
norms, grouped heads, layers and the side stream are the reference's, and all other assertions are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from deconattn import mixers
from deconattn.model import LanguageModel, ModelConfig
from tests.reference import naive
from tests.reference.parameters import complete, random_state_dict

# Three layers: a simple one, in `even` a standard one that the side stream goes through too, and a simple one behind it.
# Heads of 4 numbers: `approximate` turns from keys and values to running sums at 18 positions.
SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 320,
    "rope_theta": 1000.0,
    "rms_norm_eps": 1e-5,
}
HEADS: dict[str, dict[str, Any]] = {
    "bias": {"qk_norm": False, "attention_bias": True},
    "norm": {"qk_norm": True, "attention_bias": False},
    "both": {"qk_norm": True, "attention_bias": True},
    "neither": {"qk_norm": False, "attention_bias": False},
}
LENGTHS = (1, 2, 31, 33, 127, 257)
FLOAT64, FLOAT32, BF16 = 1e-12, 2e-6, 8e-3  # budgets, relative RMS
VARIANTS = tuple(mixers.names())
GROUPS = {"mha": 4, "grouped": 2}
# `standard` has no simple layers: it is one model in any layout.
KINDS = [
    (variant, layout, heads)
    for variant in VARIANTS
    for layout in ("uniform", "even")
    for heads in GROUPS
    if (variant, layout) != ("standard", "even")
]

# The same with heads taking turns: each variant in both layouts and with both kinds of heads.
PAIRS = [(variant, layout, heads) for variant, layout, heads in KINDS if (layout == "even") == (heads == "mha")]
PAIRS += [("standard", "uniform", "mha")]

each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_group = pytest.mark.parametrize("heads", GROUPS)
each_length = pytest.mark.parametrize("length", LENGTHS)
each_kind = pytest.mark.parametrize(("variant", "layout", "heads"), KINDS)
each_pair = pytest.mark.parametrize(("variant", "layout", "heads"), PAIRS)


def config_of(variant: str, layout: str = "uniform", heads: str = "mha", **fields: Any) -> dict[str, Any]:
    """A model's fields: Qwen2's, with every default filled in."""
    chosen = SHAPE | {"num_key_value_heads": GROUPS[heads], "variant": variant, "layout": layout} | fields
    return {name: value for name, value in complete(chosen).items() if name != "head_dim"}


def mixer_of(config: Mapping[str, Any]) -> torch.nn.Module:
    """The variant's mixer alone, in float64, its weights as they come."""
    return mixers.find(config["variant"])(ModelConfig(**config)).double()


def definition(config: Mapping[str, Any]) -> naive.Definition | None:
    """What the variant is where the reference does not know it: its own attention map, materialised."""
    if config["variant"] in naive.VARIANTS:
        return None
    mixer = mixer_of(config)

    def call(name: str, weights: Mapping[str, Tensor], *inputs: Tensor) -> Tensor | None:
        mine = {n.removeprefix("self_attn."): w for n, w in weights.items() if n.startswith("self_attn.")}
        return functional_call(Method(mixer, name), {f"mixer.{n}": w for n, w in mine.items()}, inputs)

    def attention(source: Tensor, weights: Mapping[str, Tensor]) -> Tensor | None:
        maps = call("attention_map", weights, source[None])
        return None if maps is None else maps[0]

    def alone(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        each = x[:, None]  # as many texts of one token
        mixed = call("forward", weights, each, each)
        assert mixed is not None
        return mixed[:, 0]

    return naive.Definition(mixer.qk_source, mixer.side_stream, attention, alone)


class Method(torch.nn.Module):
    """A method of a mixer as a module's forward, which is what `functional_call` calls."""

    def __init__(self, mixer: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.mixer, self.name = mixer, name

    def forward(self, *inputs: Tensor) -> Tensor | None:
        return getattr(self.mixer, self.name)(*inputs)


def random_state(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """A model's tensors in float64, none of them at its neutral value."""
    if config["variant"] in naive.VARIANTS:
        return random_state_dict(config, seed)
    mixer = mixer_of(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in mixer.named_parameters()}
    return random_state_dict(config, seed, shapes, mixer.side_stream)


def mixer_weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Random tensors of the first layer's mixer, by their names below the layer."""
    state = random_state(config, 1)
    prefix = "model.layers.0."
    return {
        name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(f"{prefix}self_attn.")
    }


def load(model: torch.nn.Module, state: Mapping[str, Tensor]) -> torch.nn.Module:
    """Strictly, but for the head of a tied model, which may be listed twice or once."""
    problems = model.load_state_dict(state, strict=False)
    tied = set() if "lm_head.weight" in state else {"lm_head.weight"}
    assert not problems.unexpected_keys and set(problems.missing_keys) <= tied, problems
    return model


def build(
    config: Mapping[str, Any], seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[LanguageModel, dict[str, Tensor]]:
    """The package's model with random weights, and those weights in float64."""
    state = random_state(config, seed)
    model = LanguageModel(ModelConfig(**config)).to(dtype)
    load(model, state)
    return model, state


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """Token ids (batch, length)."""
    return torch.randint(SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from N(0, 1) in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(x: Tensor) -> float:
    """√mean(x²)."""
    return x.double().square().mean().sqrt().item()


def assert_near(found: Tensor, expected: Tensor, budget: float, what: str = "", unit: float = 0.0) -> None:
    """RMS of the difference at most `budget` of the RMS of what is expected (of `unit`, where that is larger)."""
    assert found.shape == expected.shape, f"{what} {tuple(found.shape)} is not {tuple(expected.shape)}"
    difference = rms(found.double() - expected.double()) / max(rms(expected), unit, 1e-300)
    # NaN compares false, so the comparison is written to fail on it.
    assert difference <= budget, f"{what} relative RMS {difference:.1e}, budget {budget:.0e}"
