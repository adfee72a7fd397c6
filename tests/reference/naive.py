"""The decoder of every variant and layout as defined: one sequence, one head, one (L, L) map at a time.

Plain torch operations on a state dict, differentiable, in the precision of the given tensors (float64 in
the tests). Nothing is fused, cached, chunked or batched, and nothing comes from the package under test.
B sequences, L positions, d hidden size, dh = d / heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.reference.layouts import simple_layers
from tests.reference.parameters import complete

VARIANTS = (
    "standard",
    "mlp",
    "approximate",
    "nonapproximate",
    "rndembqk",
    "fixedseqqk",
    "staticembqk",
    "softplus",
    "softplus_reweighted",
)
SOURCES = {
    "rndembqk": "side",
    "fixedseqqk": "side",
    "staticembqk": "embeddings",
}  # of queries and keys, where not "hidden"
STREAMS = {"rndembqk": "random", "fixedseqqk": "text"}


@dataclass(frozen=True)
class Definition:
    """A variant that is not written down here.

    source, stream: as in `SOURCES` and `STREAMS`.
    layer: the mixer's output (L, d), and its map (heads, L, L) if it mixes positions, of its input (L, d), the source (L, d) of
        queries and keys, and the layer's tensors.
    """

    source: str
    stream: str | None
    layer: Callable[[Tensor, Tensor, Mapping[str, Tensor]], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Trace:
    """What one forward pass shows.

    logits: (B, L, V).
    maps: a layer's A, (B, heads, L, L); None where the layer mixes no positions (`mlp`, or skipped).
    scores: a layer's pre-softmax s, (B, heads, L, L), of which j ≤ i is used; u (B, heads, L) where it is
        `nonapproximate`; None where the map is None or another's (`Definition`).
    """

    logits: Tensor
    maps: list[Tensor | None]
    scores: list[Tensor | None]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension."""
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, theta: float) -> Tensor:
    """RoPE in the halves convention for x (L, dh).

    Feature c turns with feature c + dh/2, by the angle position · theta^(−2c/dh); positions count from 0.
    """
    length, width = x.shape
    half = width // 2
    frequency = theta ** (-2.0 * torch.arange(half, dtype=x.dtype) / width)
    angle = torch.arange(length, dtype=x.dtype)[:, None] * frequency[None, :]
    first, second = x[:, :half], x[:, half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=1)


def head_scores(kind: str, query: Tensor, key: Tensor, theta: float) -> Tensor:
    """Scores of one head from unrotated query and key (L, dh): s (L, L), or u (L,) for `nonapproximate`."""
    if kind == "nonapproximate":
        return rotated_scores(kind, query, key)
    query, key = rotate(query, theta), rotate(key, theta)
    if kind in ("softplus", "softplus_reweighted"):  # cosines, which `rotated_scores` divides by √dh
        query, key = (x / torch.sqrt((x * x).sum(dim=1, keepdim=True)) for x in (query, key))
        query = query * math.sqrt(query.shape[1])
    return rotated_scores(kind, query, key)


def rotated_scores(kind: str, query: Tensor, key: Tensor) -> Tensor:
    """As `head_scores`, from query and key as they meet."""
    scale = math.sqrt(query.shape[1])
    if kind == "nonapproximate":
        silu = query / (1.0 + torch.exp(-query))
        return (silu * key).sum(dim=1) / scale
    return torch.einsum("ic,jc->ij", query, key) / scale


def head_map(kind: str, scores: Tensor, head_dim: int) -> Tensor:
    """A (L, L) of one head from its scores: a row a query, zero above the diagonal, each row summing to 1."""
    length = scores.shape[-1]
    causal = torch.ones(length, length, dtype=scores.dtype).tril()
    if kind == "approximate":
        weights = (1.0 + scores + scores * scores / 2.0) * causal
    elif kind in ("softplus", "softplus_reweighted"):
        z = scores * math.log(head_dim) * torch.log(torch.arange(1, length + 1, dtype=scores.dtype))[:, None]
        weights = (torch.clamp(z, min=0.0) + torch.log1p(torch.exp(-z.abs()))) * causal
        if kind == "softplus_reweighted":
            return torch.stack([reweighted(row) for row in weights / weights.sum(dim=1, keepdim=True)])
    else:
        square = scores.expand(length, length).masked_fill(causal == 0, -math.inf)
        weights = torch.exp(square - square.amax(dim=1, keepdim=True).detach())
    return weights / weights.sum(dim=1, keepdim=True)


def reweighted(row: Tensor) -> Tensor:
    """ReLU(i·a − o)^15 of row i of softplus' map (L,), as shares; o = 0 up to row 3, then 1. The row itself if all are 0."""
    reach = int((row > 0).sum())
    powers = torch.relu(reach * row - (0.0 if reach <= 3 else 1.0)) ** 15
    return powers / powers.sum() if powers.sum() > 0 else row


def linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """x (L, in) through the projection `name`, with its bias where the state dict has one."""
    y = torch.einsum("li,oi->lo", x, weights[f"{name}.weight"])
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def swiglu(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """W_down( SiLU(W_gate x) ⊙ W_up x ) with the three matrices below `name`."""
    gate = linear(x, weights, f"{name}.gate_proj")
    gated = gate / (1.0 + torch.exp(-gate)) * linear(x, weights, f"{name}.up_proj")
    return linear(gated, weights, f"{name}.down_proj")


def maps_of(kind: str, source: Tensor, weights: Mapping[str, Tensor], c: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The maps (heads, L, L) and scores of one layer whose queries and keys are read from `source` (L, d)."""
    dh, group = c["head_dim"], c["num_attention_heads"] // c["num_key_value_heads"]
    queries, keys = linear(source, weights, "self_attn.q_proj"), linear(source, weights, "self_attn.k_proj")
    maps, scores = [], []
    for h in range(c["num_attention_heads"]):
        query = queries[:, h * dh : (h + 1) * dh]
        key = keys[:, (h // group) * dh : (h // group + 1) * dh]
        if c["qk_norm"]:
            query = rms_norm(query, weights["self_attn.q_norm.weight"], c["rms_norm_eps"])
            key = rms_norm(key, weights["self_attn.k_norm.weight"], c["rms_norm_eps"])
        scores.append(head_scores(kind, query, key, c["rope_theta"]))
        maps.append(head_map(kind, scores[-1], dh))
    return torch.stack(maps), torch.stack(scores)


def mix(maps: Tensor, x: Tensor, weights: Mapping[str, Tensor], c: Mapping[str, Any]) -> Tensor:
    """The maps (heads, L, L) applied to the values of x (L, d), heads joined, output projection taken."""
    dh, group = c["head_dim"], c["num_attention_heads"] // c["num_key_value_heads"]
    values = linear(x, weights, "self_attn.v_proj")
    heads = []
    for h in range(c["num_attention_heads"]):
        value = values[:, (h // group) * dh : (h // group + 1) * dh]
        heads.append(torch.einsum("ij,jc->ic", maps[h], value))
    return linear(torch.cat(heads, dim=1), weights, "self_attn.o_proj")


def mixer_layer(
    kind: str,
    x: Tensor,
    source: Tensor,
    weights: Mapping[str, Tensor],
    c: Mapping[str, Any],
    other: Definition | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One mixer's output (L, d) on its normalised input x (L, d), and its maps and scores (`Trace`) where there are any."""
    if other is not None:
        return *other.layer(x, source, weights), None
    if kind == "mlp":
        return swiglu(x, weights, "self_attn"), None, None
    maps, scores = maps_of(kind, source, weights, c)
    return mix(maps, x, weights, c), maps, scores


def forward(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    input_ids: Tensor,
    mode: str | None = None,
    other: Definition | None = None,
) -> Trace:
    """The whole decoder on input_ids (B, L).

    mode: None; "skip" leaves the relaxed layers out entirely; "skip_mixer" leaves out their mixer only.
    other: what the variant is, where it is none of `VARIANTS`.
    """
    c = complete(config)
    kind, eps, batch = c["variant"], c["rms_norm_eps"], input_ids.shape[0]
    table = state["model.embed_tokens.weight"]
    embedded = [table[ids] for ids in input_ids]
    # Each sequence is a stream of hidden states (L, d); the side stream, where there is one, comes last.
    streams = list(embedded)
    stream = other.stream if other else STREAMS.get(kind)
    if stream == "random":
        streams.append(state["model.side_embeddings"][: input_ids.shape[1]])
    elif stream == "text":
        streams.append(table[state["model.side_input_ids"][: input_ids.shape[1]]])

    simple = simple_layers(kind, c["layout"], c["num_hidden_layers"])
    all_maps: list[Tensor | None] = [None] * c["num_hidden_layers"]
    all_scores = list(all_maps)
    for n in range(1, c["num_hidden_layers"] + 1):
        if n in simple and mode == "skip":
            continue
        prefix = f"model.layers.{n - 1}."
        weights = {k.removeprefix(prefix): tensor for k, tensor in state.items() if k.startswith(prefix)}
        if n not in simple or mode is None:
            norm = weights["input_layernorm.weight"]
            sources = inputs = [rms_norm(x, norm, eps) for x in streams]
            origin = (other.source if other else SOURCES.get(kind, "hidden")) if n in simple else "hidden"
            if origin == "side":
                sources = [inputs[-1]] * len(streams)
            elif origin == "embeddings":
                sources = [rms_norm(x, norm, eps) for x in embedded]
            what = (kind, other) if n in simple else ("standard", None)
            layers = [
                mixer_layer(what[0], x, source, weights, c, what[1]) for x, source in zip(inputs, sources, strict=True)
            ]
            mixed, maps, scores = zip(*layers, strict=True)
            streams = [x + y for x, y in zip(streams, mixed, strict=True)]
            all_maps[n - 1] = None if maps[0] is None else torch.stack(maps[:batch])
            all_scores[n - 1] = None if scores[0] is None else torch.stack(scores[:batch])
        after = weights["post_attention_layernorm.weight"]
        streams = [x + swiglu(rms_norm(x, after, eps), weights, "mlp") for x in streams]

    head = table if c["tie_word_embeddings"] else state["lm_head.weight"]
    final = torch.stack([rms_norm(x, state["model.norm.weight"], eps) for x in streams[:batch]])
    return Trace(torch.einsum("bld,vd->blv", final, head), all_maps, all_scores)


def next_token_loss(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Mean of −log p(token i+1 | tokens ≤ i) in nats, over all of input_ids (B, L); L ≥ 2."""
    predicted, target = logits[:, :-1], input_ids[:, 1:]
    chosen = predicted.gather(2, target[:, :, None])[:, :, 0]
    return (torch.logsumexp(predicted, dim=2) - chosen).mean()


def gradients(
    config: Mapping[str, Any], state: Mapping[str, Tensor], input_ids: Tensor, other: Definition | None = None
) -> dict[str, Tensor]:
    """d loss / d tensor for every trained tensor of `state` (the side streams are not trained), by name.

    For L = 1, which has no next token, the loss is replaced by the mean of cos(logits).
    """
    trained = {n: v for n, v in state.items() if not n.startswith("model.side_")}
    leaves = {n: v.clone().requires_grad_() for n, v in trained.items()}
    logits = forward(config, {**state, **leaves}, input_ids, None, other).logits
    value = next_token_loss(logits, input_ids) if input_ids.shape[1] > 1 else logits.cos().mean()
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in pairs}
