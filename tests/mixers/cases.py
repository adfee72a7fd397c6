"""What the suite runs on: models of every registered variant, the reference beside them, and what a difference is.

A variant that `tests/reference/naive.py` knows is held to the equation written there. Any other, a new file in
`deconattn/mixers`, is held to its own `attention_map`, in float64 and inside the reference's decoder: values, output,
norms, grouped heads, layers and the side stream are the reference's, and all other assertions are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from deconattn import DeconAttnConfig, DeconAttnForCausalLM, mixers
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel
from deconattn.mixers.base import Mixer
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
LENGTHS = (1, 2, 31, 33, 257)
FLOAT64, FLOAT32, BF16 = 1e-12, 2e-6, 8e-3  # budgets, relative RMS
SENSITIVE = {
    "softplus_reweighted": 5
}  # x^15: the rounding of queries, keys and scores comes out up to 15 times as large
VARIANTS = tuple(mixers.names())
GROUPS = {"mha": 4, "grouped": 2}
# `standard` has no relaxed layers: it is one model in any layout.
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
# Every length and kind where all tests run; else a token, and one more than a block of the fast forms, and the kinds in which
# heads take turns.
QUICK = (1, 33)
each_length = pytest.mark.parametrize(
    "length", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in LENGTHS]
)
each_kind = pytest.mark.parametrize(
    ("variant", "layout", "heads"),
    [pytest.param(*kind, marks=() if kind in PAIRS else pytest.mark.slow) for kind in KINDS],
)
each_pair = pytest.mark.parametrize(("variant", "layout", "heads"), PAIRS)


def config_of(variant: str, layout: str = "uniform", heads: str = "mha", **fields: Any) -> dict[str, Any]:
    """A model's fields: Qwen2's, with every default filled in."""
    chosen = SHAPE | {"num_key_value_heads": GROUPS[heads], "variant": variant, "layout": layout} | fields
    return {name: value for name, value in complete(chosen).items() if name != "head_dim"}


def mixer_of(config: Mapping[str, Any]) -> Mixer:
    """The variant's mixer alone, in float64, its weights as they come."""
    return mixers.find(config["variant"])(ModelConfig(**config)).double()


def definition(config: Mapping[str, Any]) -> naive.Definition | None:
    """What the variant is where the reference does not know it: its own attention map, materialised."""
    if config["variant"] in naive.VARIANTS:
        return None
    mixing, showing = mixer_of(config), mixer_of(config)
    showing.forward = showing.attention_map

    def layer(x: Tensor, source: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        own = {n.removeprefix("self_attn."): w for n, w in weights.items() if n.startswith("self_attn.")}
        maps = functional_call(showing, own, source[None])
        if maps is None:  # as many texts of one token
            return functional_call(mixing, own, (x[:, None], x[:, None]))[:, 0], None
        return naive.mix(maps[0], x, weights, complete(config)), maps[0]

    return naive.Definition(mixing.qk_source, mixing.side_stream, layer)


def reference(
    config: Mapping[str, Any], state: Mapping[str, Tensor], ids: Tensor, mode: str | None = None
) -> naive.Trace:
    """What the reference decoder shows of a text."""
    return naive.forward(config, state, ids, mode, definition(config))


def reference_gradients(config: Mapping[str, Any], state: Mapping[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """Gradients of the loss by the reference decoder."""
    return naive.gradients(config, state, ids, definition(config))


def random_state(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """A model's tensors in float64, none of them at its neutral value."""
    if config["variant"] in naive.VARIANTS:
        return random_state_dict(config, seed)
    mixer = mixer_of(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in mixer.named_parameters()}
    return random_state_dict(config, seed, shapes, mixer.side_stream)


def filled(config: Mapping[str, Any]) -> tuple[Mixer, dict[str, Tensor]]:
    """The variant's mixer with random weights, and those weights by their names below the layer."""
    mixer, first = mixer_of(config), "model.layers.0.self_attn."
    own = {name.removeprefix(first): x for name, x in random_state(config, 1).items() if name.startswith(first)}
    mixer.load_state_dict(own)
    return mixer, {f"self_attn.{name}": x for name, x in own.items()}


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


def wrapped(config: dict[str, Any], dtype: torch.dtype = torch.float64) -> DeconAttnForCausalLM:
    """The model in transformers' class, with random weights."""
    model = DeconAttnForCausalLM(DeconAttnConfig(**config)).to(dtype).eval()
    load(model, build(config)[1])
    return model


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """Token ids (batch, length)."""
    return torch.randint(SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from N(0, 1) in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(x: Tensor) -> float:
    """√mean(x²)."""
    return x.double().square().mean().sqrt().item()


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """All of them as one vector."""
    return torch.cat([x.flatten() for x in tensors])


def assert_near(found: Tensor, expected: Tensor, budget: float, what: str = "", unit: float = 0.0) -> None:
    """RMS of the difference at most `budget` of the RMS of what is expected (of `unit`, where that is larger)."""
    assert found.shape == expected.shape, f"{what} {tuple(found.shape)} is not {tuple(expected.shape)}"
    difference = rms(found.double() - expected.double()) / max(rms(expected), unit, 1e-300)
    # NaN compares false, so the comparison is written to fail on it.
    assert difference <= budget, f"{what} relative RMS {difference:.1e}, budget {budget:.0e}"
