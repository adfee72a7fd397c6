"""The names and shapes of a model's tensors, and random values in which no bias or norm can hide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.reference.layouts import simple_layers

BUFFERS = ("model.side_embeddings", "model.side_input_ids")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every field that has a default filled in, and `head_dim` added."""
    full: dict[str, Any] = {
        "num_key_value_heads": config["num_attention_heads"],
        "max_position_embeddings": 2048,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "qk_norm": False,
        "variant": "standard",
        "layout": "uniform",
        **config,
    }
    full.setdefault("attention_bias", not full["qk_norm"])
    full["head_dim"] = full["hidden_size"] // full["num_attention_heads"]
    return full


def attention_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of one attention mixer, by their names below `self_attn.`."""
    c = complete(config)
    d, kv = c["hidden_size"], c["num_key_value_heads"] * c["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "q_proj.weight": (d, d),
        "k_proj.weight": (kv, d),
        "v_proj.weight": (kv, d),
        "o_proj.weight": (d, d),
    }
    if c["attention_bias"]:
        shapes |= {"q_proj.bias": (d,), "k_proj.bias": (kv,), "v_proj.bias": (kv,)}
    if c["qk_norm"]:
        shapes |= {"q_norm.weight": (c["head_dim"],), "k_norm.weight": (c["head_dim"],)}
    return shapes


def attention_size(config: Mapping[str, Any]) -> int:
    """Parameters of one attention mixer: 4d² + 3d for multi-head attention with bias."""
    return sum(math.prod(shape) for shape in attention_shapes(config).values())


def mixer_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a relaxed layer's mixer, by their names below `self_attn.`.

    The inner width of `mlp` is the one whose 3·d·width comes closest to the attention that it replaces.
    """
    if config["variant"] != "mlp":
        return attention_shapes(config)
    d = config["hidden_size"]
    w = round(attention_size(config) / (3 * d))
    return {"gate_proj.weight": (w, d), "up_proj.weight": (w, d), "down_proj.weight": (d, w)}


def parameter_shapes(
    config: Mapping[str, Any], mixer: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Name → shape of everything that is trained; the fixed side streams are not among it.

    `mixer` gives the tensors of a relaxed layer's mixer, by their names below `self_attn.`, where they are of its own.
    """
    c = complete(config)
    d, inner, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    simple = simple_layers(c["variant"], c["layout"], c["num_hidden_layers"])
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
    for n in range(1, c["num_hidden_layers"] + 1):
        tensors = (mixer or mixer_shapes(c)) if n in simple else attention_shapes(c)
        prefix = f"model.layers.{n - 1}."
        shapes |= {f"{prefix}self_attn.{name}": shape for name, shape in tensors.items()}
        shapes |= {
            f"{prefix}mlp.gate_proj.weight": (inner, d),
            f"{prefix}mlp.up_proj.weight": (inner, d),
            f"{prefix}mlp.down_proj.weight": (d, inner),
            f"{prefix}input_layernorm.weight": (d,),
            f"{prefix}post_attention_layernorm.weight": (d,),
        }
    shapes["model.norm.weight"] = (d,)
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, d)
    return shapes


def random_state_dict(
    config: Mapping[str, Any],
    seed: int,
    mixer: Mapping[str, tuple[int, ...]] | None = None,
    stream: str | None = None,
) -> dict[str, Tensor]:
    """A state dict of float64 tensors (and int64 `side_input_ids`), all far from their neutral values.

    Norm weights lie in 0.5 … 1.5 and biases are of the size of what they are added to, so that leaving one
    out, or taking another layer's, changes the logits visibly. `mixer` as in `parameter_shapes`, and `stream` "random" or
    "text": the side stream of a variant that is not known here.
    """
    c = complete(config)
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in parameter_shapes(c, mixer).items():
        if "norm" in name:
            state[name] = 0.5 + torch.rand(shape, generator=random, dtype=torch.float64)
            continue
        values = torch.randn(shape, generator=random, dtype=torch.float64)
        if len(shape) < 2:
            values *= 0.5
        elif name != "model.embed_tokens.weight":
            values /= math.sqrt(shape[1])
        state[name] = values
    positions, d = c["max_position_embeddings"], c["hidden_size"]
    if c["variant"] == "rndembqk" or stream == "random":
        noise = torch.randn((positions, d), generator=random, dtype=torch.float64)
        state["model.side_embeddings"] = 0.02 * noise
    if c["variant"] == "fixedseqqk" or stream == "text":
        state["model.side_input_ids"] = torch.randint(c["vocab_size"], (positions,), generator=random)
    return state
