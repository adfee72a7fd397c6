"""The contract of a mixer, and what mixers with queries, keys and values share.

A mixer takes the place of attention in a layer: it reads the layer's normalised input H (B, L, d) and gives O (B, L, d).
A variant is one file of this folder. It states its equation and source, and defines
- one class: its parameters; `attention_map`, the definition of A; `forward`, the fast path for training; `step`, the next
  tokens from a state;
- two functions beside the class, `flops` and `state_bytes`: what it costs (`deconattn.mixers.formulas`).

Most variants need less. A `QKVMixer` has projections and grouped queries, and leaves open how projected queries, keys and values
are mixed. A `ScoreMixer` leaves one function open, from a query's scores to its row of A.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deconattn.config import ModelConfig
from deconattn.layers import RMSNorm, Rotary, rotate, widened, without_autocast
from deconattn.mixers.cache import CacheLengths, KVCache, QueriesKeys, State

QKSource = Literal["hidden", "side", "embeddings"]
SideStream = Literal["random", "text"]
BLOCK = 128  # queries that are mixed at once where no kernel takes them all


class Mixer(nn.Module, ABC):
    """What every variant is.

    `qk_source` names what queries and keys are made of: the layer's own normalised input ("hidden"), that of the side
    stream ("side"), or the layer-normalised token embeddings ("embeddings").

    `side_stream` names what the side stream starts from, if there is one: random embeddings that are never trained, or the
    embeddings of a fixed text.
    """

    qk_source: ClassVar[QKSource] = "hidden"
    side_stream: ClassVar[SideStream | None] = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def attention_map(self, source: Tensor) -> Tensor | None:
        """A as the paper writes it, (B or 1, heads, L, L) in at least float32; None when positions are not mixed.

        `source` (B or 1, L, d) is what `qk_source` names. Rows sum to 1 and A_ij = 0 for j > i.
        """

    def raw_scores(self, source: Tensor) -> Tensor | None:
        """The activations before the softmax that causal queries see, (B or 1, heads, N); None where there are none."""
        return None

    @abstractmethod
    def forward(self, hidden: Tensor, source: Tensor | QueriesKeys) -> Tensor:
        """O (B, L, d) of the normalised input `hidden` (B, L, d) and the `source` of queries and keys (B or 1, L, d).

        `source` may be the queries and keys themselves, of L positions or more, where they were computed before.
        """

    def new_state(self) -> State:
        """An empty state, for `step` to fill."""
        return State()

    @abstractmethod
    def step(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State,
        past: CacheLengths,
        counts: Tensor | None = None,
    ) -> Tensor:
        """O (B, n, d) of the next n tokens of each row, `hidden` (B, n, d), behind the `past` that `state` has seen.

        Extends `state` by the first `counts` (B,) of them, or by all; it holds no gradient. If `source` is a side stream's
        queries and keys, they begin at position 0.
        """


class QKVMixer(Mixer):
    """A mixer with query, key, value and output projections, with Qwen2's names, biases and grouped queries.

    A subclass defines what happens to projected queries, keys and values: `attention_map_of`, `mix` and `mix_step`.
    Shapes: q (B or 1, heads, L, head_dim), k (B or 1, KV heads, L, head_dim), both after the head norm (where
    `qk_norm`) and RoPE (where `rotary`); v (B, KV heads, L, head_dim).
    """

    rotary: ClassVar[bool] = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, d, bias=bias)
        self.k_proj = nn.Linear(d, config.kv_size, bias=bias)
        self.v_proj = nn.Linear(d, config.kv_size, bias=bias)
        self.o_proj = nn.Linear(d, d, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        if self.rotary:
            self.rope = Rotary(config.head_dim, config.rope_theta, config.max_position_embeddings)

    def queries_keys(self, source: Tensor, past: CacheLengths | None = None) -> QueriesKeys:
        """q and k of `source` (B, L, d), at positions 0 … L − 1, or behind the `past`."""
        q = self.q_norm(self._split(self.q_proj(source)))
        k = self.k_norm(self._split(self.k_proj(source)))
        if not self.rotary:
            return q, k
        count = source.shape[1]
        cos, sin = self.rope.tables(count + (past.most if past else 0), q)
        if past and past.equal:
            cos, sin = cos[past.most :], sin[past.most :]
        elif past:
            cos, sin = (table[past.positions(count)].unsqueeze(1) for table in (cos, sin))
        return rotate(q, cos, sin), rotate(k, cos, sin)

    def attention_map(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return self.attention_map_of(widened(q), widened(self.repeat(k)))

    def forward(self, hidden: Tensor, source: Tensor | QueriesKeys) -> Tensor:
        q, k = self.queries_keys(source) if isinstance(source, Tensor) else source
        v = self._split(self.v_proj(hidden))
        length = v.shape[2]
        return self._joined(self.mix(q[:, :, :length], k[:, :, :length], v))

    def step(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State,
        past: CacheLengths,
        counts: Tensor | None = None,
    ) -> Tensor:
        q, k = self.queries_keys(source, past) if isinstance(source, Tensor) else source
        v = self._split(self.v_proj(hidden))
        with without_autocast(v.device):  # sums are float32, whatever the products around them are
            mixed = self.mix_step(q, k, v, state, past, counts)
        return self._joined(mixed)

    @abstractmethod
    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        """The definition: A (B, heads, L, L) of projected queries and keys, one key head a query head."""

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A @ v, (B, heads, L, head_dim), by the fastest exact form."""

    @abstractmethod
    def mix_step(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, past: CacheLengths, counts: Tensor | None
    ) -> Tensor:
        """The last n rows of A @ v, (B, heads, n, head_dim), for n more tokens, which go into `state` (see `step`)."""

    def repeat(self, x: Tensor) -> Tensor:
        """(B, KV heads, …) → (B, heads, …): each key head for the query heads of its group."""
        group = self.config.num_attention_heads // self.config.kv_heads
        return x if group == 1 else x.repeat_interleave(group, dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def _joined(self, mixed: Tensor) -> Tensor:
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class ScoreMixer(QKVMixer):
    """A mixer whose A_ij is a function of the scores s_i1 … s_ii, s = q·k / √dh: that function is `weights`.

    Its map, its fast form over blocks of queries (`mix`) and its decoding from keys and values follow. A variant that has a
    faster `mix` defines it too: that runs in training, and `weights` then only says what it must equal. Where `qk_source` is
    "side", one map serves the whole batch, and only values are kept.
    """

    @abstractmethod
    def weights(self, s: Tensor, masked: Tensor, reach: Tensor) -> Tensor:
        """Rows of A (…, n, m), each summing to 1, from scores s (…, n, m) of n queries against m keys.

        `masked` (…, n, m) is true where a key must not be seen; `reach` (…, n, 1) is how many keys a query sees.
        """

    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        length = q.shape[2]
        reach = torch.arange(1, length + 1, device=q.device).unsqueeze(-1)
        return self.weights(scores(q, k), future(length, q.device), reach)

    def raw_scores(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return scores(q, self.repeat(k))[..., ~future(source.shape[1], source.device)]

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = self.repeat(k), self.repeat(v)
        reach = torch.arange(1, q.shape[2] + 1, device=q.device).unsqueeze(-1)
        mixed = [self._rows(q[:, :, a:b], k[:, :, :b], v[:, :, :b], reach[a:b]) for a, b in blocks(q.shape[2])]
        return torch.cat(mixed, dim=2)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, past: CacheLengths) -> Tensor:
        """The rows of A @ v of queries behind the `past`, from all keys and values, (B or 1, KV heads, past.most + n, dh)."""
        reach = (past.positions(q.shape[2]) + 1)[:, None, :, None]
        return self._rows(q, self.repeat(keys), self.repeat(values), reach)

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        s = widened(scores(q, k))
        masked = torch.arange(k.shape[2], device=k.device) >= reach
        return self.weights(s, masked, reach).to(v.dtype) @ v

    def new_state(self) -> State:
        return KVCache()

    def mix_step(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, past: CacheLengths, counts: Tensor | None
    ) -> Tensor:
        assert isinstance(state, KVCache)
        if self.qk_source == "side":
            positions = past.positions(v.shape[2])
            k = k[:, :, : past.most + v.shape[2]]
            # One row of queries for the batch, or, where rows stand at different positions, each its own.
            q = q[:, :, positions[0]] if past.equal else q[0][:, positions].transpose(0, 1)
            (v,) = state.append(past, values=v)
        else:
            k, v = state.append(past, keys=k, values=v)
        return self.attend(q, k, v, past) if past.most else self.mix(q, k, v)


def blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def scores(q: Tensor, k: Tensor) -> Tensor:
    """s = q·k / √dh, (B, heads, L, L), not masked."""
    return (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5


def future(length: int, device: torch.device) -> Tensor:
    """(L, L) boolean, true where j > i: what a causal map must not see."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def with_one(v: Tensor) -> Tensor:
    """[v, 1] in at least float32: what sums to the last entry normalises the others."""
    return F.pad(widened(v), (0, 1), value=1.0)
