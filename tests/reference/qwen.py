"""The outside oracle: transformers' Qwen2 and Qwen3 decoders, unchanged or with their mixers exchanged.

Projections, grouped heads, the rotation, residuals and the feed-forward stay transformers' own code. The
mixers are exchanged by hooks and through its attention interface, in other forms than the naive maps
(feature maps, running sums).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.reference.layouts import simple_layers
from tests.reference.parameters import complete


def plain(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Qwen2ForCausalLM, or Qwen3ForCausalLM where `qk_norm`, unchanged, in float64, with `state` loaded."""
    return filled(empty(config), state)


def filled(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model in float64 with all of `state` but side streams; the head of a tied model is its table."""
    problems = model.double().load_state_dict(
        {n: x for n, x in state.items() if not n.startswith("model.side_")}, strict=False
    )
    assert not problems.unexpected_keys and set(problems.missing_keys) <= {"lm_head.weight"}, problems
    return model.eval()


def empty(config: Mapping[str, Any]) -> nn.Module:
    """The transformers model of this shape, with weights of its own."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    c = complete(config)
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    more = ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")
    fields = {name: c[name] for name in same + more} | {
        "rope_parameters": {"rope_type": "default", "rope_theta": float(c["rope_theta"])},
        "use_cache": False,
        "attn_implementation": "sdpa",
    }
    if c["qk_norm"]:
        return Qwen3ForCausalLM(Qwen3Config(**fields, head_dim=c["head_dim"], attention_bias=False))
    return Qwen2ForCausalLM(Qwen2Config(**fields))


class DoubleRotary(nn.Module):
    """cos and sin of the rotation in float64, where transformers always computes them in float32."""

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.frequency = [1.0 / theta ** (even / width) for even in range(0, width, 2)]

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = [[[p * f for f in self.frequency * 2] for p in row] for row in position_ids.tolist()]
        angle = torch.tensor(angles, dtype=torch.float64)
        return angle.cos(), angle.sin()


class Replaced(nn.Module):
    """Transformers' feed-forward in the place of an attention module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = inner.gate_proj, inner.up_proj, inner.down_proj

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        gate = nn.functional.silu(self.gate_proj(hidden_states))
        return self.down_proj(gate * self.up_proj(hidden_states)), None


def taylor_features(x: Tensor) -> Tensor:
    """φ(x) = (1, x, x⊗x/√2), so that φ(q)·φ(k) = 1 + q·k + (q·k)²/2."""
    second = (x[..., :, None] * x[..., None, :]).flatten(-2) / math.sqrt(2.0)
    return torch.cat([torch.ones_like(x[..., :1]), x, second], dim=-1)


def taylor_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Second-order Taylor attention from running sums of φ(k)vᵀ and φ(k); query and key hold the scale."""
    f, g = taylor_features(query), taylor_features(key)
    numerator = (g[..., :, None] * value[..., None, :]).cumsum(dim=-3)
    return (f[..., None, :] @ numerator).squeeze(-2) / (f * g.cumsum(dim=-2)).sum(-1, keepdim=True)


def attend(kind: str, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention of one kind over (B, heads, L, dh), without an explicit map."""
    if kind == "approximate":
        root = math.sqrt(scaling)
        return taylor_attention(query * root, key * root, value)
    if kind == "nonapproximate":
        scores = (nn.functional.silu(query) * key).sum(-1, keepdim=True) * scaling
        weight = torch.exp(scores - scores.amax(dim=2, keepdim=True).detach())
        return (weight * value).cumsum(2) / weight.cumsum(2)
    if kind in ("softplus", "softplus_reweighted"):
        dh, reach = query.shape[-1], torch.arange(1.0, query.shape[2] + 1, dtype=query.dtype)
        cosine = nn.functional.cosine_similarity(query[..., :, None, :], key[..., None, :, :], dim=-1, eps=1e-12)
        weight = nn.functional.softplus(cosine * reach.log()[:, None] * math.log(dh), threshold=40).tril()
        weight = nn.functional.normalize(weight, p=1, dim=-1)
        if kind == "softplus_reweighted":
            shifted = weight * reach[:, None] - (reach > 3).to(weight.dtype)[:, None]
            sharp = nn.functional.normalize(shifted.relu() ** 15, p=1, dim=-1, eps=0.0)
            weight = torch.where(sharp.isnan(), weight, sharp)
        return weight @ value
    return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)


def exchanged_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """An attention function for transformers' registry; its kind is read from the module.

    It leaves the map on the module as `seen`, (B, heads, L, L): what it makes of unit vectors for values.
    """
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    length = query.shape[2]
    units = torch.eye(length, dtype=value.dtype).expand(*query.shape[:2], length, length)
    with torch.no_grad():
        module.seen = attend(module.exchanged, query, key, units, scaling)
    return attend(module.exchanged, query, key, value, scaling).transpose(1, 2).contiguous(), None


def double_precision(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Exchange, in place, the two pieces that transformers computes in float32 whatever the model's type."""
    c = complete(config)
    model.model.rotary_emb = DoubleRotary(c["head_dim"], c["rope_theta"])
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape[0], eps=c["rms_norm_eps"], dtype=torch.float64)
                norm.weight = child.weight
                setattr(parent, name, norm)


def exchanged(
    config: Mapping[str, Any], state: Mapping[str, Tensor], mode: str | None = None
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A float64 transformers model of any variant, layout and mode, and its input_ids → logits (B, L, V).

    The side stream is one more row of its batch.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("exchanged", exchanged_attention)
    AttentionMaskInterface.register("exchanged", sdpa_mask)

    c = complete(config)
    variant = c["variant"]
    model = empty(c)
    model.config._attn_implementation = "exchanged"
    simple = simple_layers(variant, c["layout"], c["num_hidden_layers"])
    seen: dict[str, Tensor] = {}

    def from_side(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0][:1].expand_as(args[0]),)

    for n, layer in enumerate(model.model.layers, start=1):
        attention = layer.self_attn
        attention.exchanged = variant if n in simple else "standard"
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            width = projection.out_features
            projection.bias = nn.Parameter(torch.zeros(width)) if c["attention_bias"] else None
        if n not in simple:
            continue
        if variant == "mlp":
            width = state[f"model.layers.{n - 1}.self_attn.gate_proj.weight"].shape[0]
            narrow = type(model.config)(hidden_size=c["hidden_size"], intermediate_size=width)
            layer.self_attn = Replaced(type(layer.mlp)(narrow))
        elif variant == "nonapproximate":

            def unrotated(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
                cos, sin = kwargs["position_embeddings"]
                return args, kwargs | {"position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}

            layer.register_forward_pre_hook(unrotated, with_kwargs=True)
        elif variant not in ("approximate", "softplus", "softplus_reweighted"):

            def from_embeddings(_: nn.Module, args: tuple[Tensor], layer: nn.Module = layer) -> tuple[Tensor]:
                return (layer.input_layernorm(seen["embeddings"]),)

            hook = from_embeddings if variant == "staticembqk" else from_side
            attention.q_proj.register_forward_pre_hook(hook)
            attention.k_proj.register_forward_pre_hook(hook)

    filled(model, state)
    double_precision(model, c)
    if mode == "skip":
        kept = [layer for n, layer in enumerate(model.model.layers, start=1) if n not in simple]
        model.model.layers = nn.ModuleList(kept)
    elif mode == "skip_mixer":
        for n in simple:
            mixer = model.model.layers[n - 1].self_attn
            nn.init.zeros_(mixer.down_proj.weight if variant == "mlp" else mixer.o_proj.weight)

    def logits(input_ids: Tensor) -> Tensor:
        table, length = model.model.embed_tokens, input_ids.shape[1]
        rows = seen["embeddings"] = table(input_ids)
        if variant == "rndembqk":
            rows = torch.cat([state["model.side_embeddings"][None, :length], rows])
        elif variant == "fixedseqqk":
            rows = torch.cat([table(state["model.side_input_ids"][None, :length]), rows])
        return model(inputs_embeds=rows).logits[-input_ids.shape[0] :]

    return model, logits
