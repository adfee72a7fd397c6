"""The contract of a mixer, and what all mixers with queries, keys and values share.

A mixer is what stands between a layer's two residual additions in place of attention. It takes the layer's normalised
input H, (B, L, d), and gives O, (B, L, d). Every variant has five things, in this order: its parameters, counted by a
formula; `attention_map`, the definition of A, materialised; `forward`, the fast path for training and prefill; `step`,
one token at a time from a state of stated size; `costs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from deconattn.functions import rms_norm, widened, without_autocast
from deconattn.mixers._costs import Costs
from deconattn.mixers._rotary import rotary_tables, rotate
from deconattn.mixers._states import Seen, State
from deconattn.products import Linear

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

QKSource = Literal["hidden", "side", "embeddings"]
SideStream = Literal["random", "text"]
QueriesKeys = tuple[Tensor, Tensor]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension (`rms_norm`) with a weight of its own."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) → (…, size); under autocast in the precision of the products behind it."""
        return rms_norm(x, self.weight, self.eps)


class Mixer(nn.Module, ABC):
    """What every variant is.

    `qk_source` says what the queries and keys are made of: the layer's own normalised input ("hidden"), that of the
    side stream ("side": row 0 of the batch in training, computed once at inference), or the layer-normalised token
    embeddings ("embeddings").

    `side_stream` says, where there is one, what it starts from: random embeddings that are never trained, or the embeddings
    of a fixed text.
    """

    qk_source: ClassVar[QKSource] = "hidden"
    side_stream: ClassVar[SideStream | None] = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    @abstractmethod
    def parameter_count(cls, config: ModelConfig) -> int:
        """Parameters of one layer's mixer, by formula."""

    @abstractmethod
    def attention_map(self, source: Tensor) -> Tensor | None:
        """A as the paper writes it, (B or 1, heads, L, L) in at least float32; None when positions are not mixed.

        `source` (B or 1, L, d) is what `qk_source` names. Rows sum to 1 and A_ij = 0 for j > i.
        """

    @abstractmethod
    def raw_scores(self, source: Tensor) -> Tensor | None:
        """The activations before the softmax that causal queries see, (B or 1, heads, N); None where there are none."""

    @abstractmethod
    def forward(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """O, (B, L, d), of the normalised input `hidden` (B, L, d) and the `source` of queries and keys (B or 1, L, d).

        `source` may be the queries and keys themselves, where they were computed before (see `queries_keys`). A new
        `state` takes in what was seen: the first `lengths` (B,) positions of each row, or all. It holds no gradient.
        """

    @abstractmethod
    def new_state(self) -> State:
        """An empty state, for `forward` to fill."""

    @abstractmethod
    def step(self, hidden: Tensor, source: Tensor | QueriesKeys, state: State, seen: Seen) -> Tensor:
        """O, (B, 1, d), of one more token a row, `hidden` (B, 1, d), behind those that `state` has `seen`; extends `state`."""

    @classmethod
    @abstractmethod
    def costs(cls, config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> Costs:
        """What this mixer costs in one layer for `batch` sequences of `length` tokens, `itemsize` bytes a number.

        With a side stream, `batch` counts the rows that are mixed; its queries and keys are those of one row more in
        prefill and were computed before in decoding.
        """


class QKVMixer(Mixer):
    """A mixer with query, key, value and output projections, with Qwen2's names, biases and grouped queries.

    A subclass gives what happens to projected queries, keys and values: `attention_map_of`, `mix`, `fill` and `mix_step`.
    Shapes: q (B or 1, heads, L, head_dim), k (B or 1, KV heads, L, head_dim), both after the head norm (where
    `qk_norm`) and RoPE (where `rotary`); v (B, KV heads, L, head_dim).
    """

    rotary: ClassVar[bool] = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, bias = config.hidden_size, config.attention_bias
        kv_size = config.kv_heads * config.head_dim
        self.q_proj = Linear(d, d, bias=bias)
        self.k_proj = Linear(d, kv_size, bias=bias)
        self.v_proj = Linear(d, kv_size, bias=bias)
        self.o_proj = Linear(d, d, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    @classmethod
    def parameter_count(cls, config: ModelConfig) -> int:
        """4d² + 3d of the base model (SPEC §3); fewer with grouped queries, head norms in place of biases with `qk_norm`."""
        d, kv_size = config.hidden_size, config.kv_heads * config.head_dim
        weights = 2 * d * d + 2 * d * kv_size
        biases = (d + 2 * kv_size) if config.attention_bias else 0
        norms = 2 * config.head_dim if config.qk_norm else 0
        return weights + biases + norms

    def queries_keys(self, source: Tensor, seen: Seen | None = None) -> QueriesKeys:
        """q and k of `source` (B, L, d), ready for a dot product; with `seen`, of one token behind those seen (L = 1)."""
        q = self.q_norm(self._split(self.q_proj(source)))
        k = self.k_norm(self._split(self.k_proj(source)))
        if self.rotary:
            end = source.shape[1] if seen is None else seen.most + 1
            cos, sin = rotary_tables(end, self.config.head_dim, self.config.rope_theta, q)
            if seen is not None and seen.equal:
                cos, sin = cos[seen.most :], sin[seen.most :]
            elif seen is not None:
                cos, sin = cos[seen.rows, None, None], sin[seen.rows, None, None]
            q, k = rotate(q, (cos, sin)), rotate(k, (cos, sin))
        return q, k

    def attention_map(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return self.attention_map_of(widened(q), widened(self.repeat(k)))

    def forward(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        q, k = self.queries_keys(source) if isinstance(source, Tensor) else source
        v = self._split(self.v_proj(hidden))
        if state is not None:
            with without_autocast(v.device):  # sums are float32, whatever the products around them are
                self.fill(state, q, k, v, lengths)
        return self._output(self.mix(q, self.repeat(k), self.repeat(v)))

    def step(self, hidden: Tensor, source: Tensor | QueriesKeys, state: State, seen: Seen) -> Tensor:
        q, k = self.queries_keys(source, seen) if isinstance(source, Tensor) else source
        v = self._split(self.v_proj(hidden))
        with without_autocast(v.device):
            mixed = self.mix_step(q, k, v, state, seen)
        return self._output(mixed)

    @abstractmethod
    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        """A (B, heads, L, L) of projected queries and keys, one key head a query head: the definition."""

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A @ v, (B, heads, L, head_dim), by the fastest exact form; keys and values repeated to one a query head."""

    @abstractmethod
    def fill(self, state: State, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> None:
        """Put the first `lengths` (B,) positions of each row, or all, into an empty `state`."""

    @abstractmethod
    def mix_step(self, q: Tensor, k: Tensor, v: Tensor, state: State, seen: Seen) -> Tensor:
        """The last row of A @ v, (B, heads, 1, head_dim), for one more token; puts it into `state`."""

    def repeat(self, x: Tensor) -> Tensor:
        """(B, KV heads, …) → (B, heads, …): each key head for the query heads of its group."""
        group = self.config.num_attention_heads // self.config.kv_heads
        return x if group == 1 else x.repeat_interleave(group, dim=1)

    def _output(self, mixed: Tensor) -> Tensor:
        """The heads of `mixed` (B, heads, L, head_dim), joined and projected: (B, L, d)."""
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    @classmethod
    def projection_flops(cls, config: ModelConfig, qk_tokens: int, vo_tokens: int) -> int:
        """q and k of `qk_tokens`, v and o of `vo_tokens`: 2·(d² + d·kv) each a token."""
        d, kv_size = config.hidden_size, config.kv_heads * config.head_dim
        return 2 * d * (d + kv_size) * (qk_tokens + vo_tokens)

    @classmethod
    def head_norm_numbers(cls, config: ModelConfig, tokens: int) -> int:
        """Numbers that the head norms' backward reads: their inputs, and 1/RMS of each head."""
        heads = config.num_attention_heads + config.kv_heads
        return tokens * heads * (config.head_dim + 1) if config.qk_norm else 0

    @classmethod
    def joined_numbers(cls, config: ModelConfig, batch: int, length: int) -> int:
        """Numbers of the copy that joining heads makes where each lies by itself; a single position or head needs none."""
        return batch * length * config.hidden_size if length > 1 and config.num_attention_heads > 1 else 0


def scores(q: Tensor, k: Tensor) -> Tensor:
    """s = q·k / √dh, (B, heads, L, L), not masked."""
    return (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5


def future(length: int, device: torch.device, start: int = 0) -> Tensor:
    """(L − start, L) boolean, true where j > i, for queries from `start` on: what a causal map must not see."""
    return torch.ones(length - start, length, dtype=torch.bool, device=device).triu(start + 1)
