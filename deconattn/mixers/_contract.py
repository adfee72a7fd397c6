"""The contract of a mixer, and what all mixers with queries, keys and values share.

A mixer is what stands between a layer's two residual additions in place of attention. It takes the layer's normalised
input H, (B, L, d), and gives O, (B, L, d). Every variant states, in this order: its parameters, counted by a formula;
`attention_map`, the definition of A, materialised; `mix`, the fast path for training and prefill.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from deconattn.mixers._rotary import rotary_tables, rotate

if TYPE_CHECKING:
    from deconattn.model import ModelConfig

QKSource = Literal["hidden", "side", "embeddings"]
SideStream = Literal["random", "text"]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in at least float32 (Zhang & Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, size) → (…, size), in x's dtype."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return nn.functional.rms_norm(wide, self.weight.shape, self.weight.to(wide.dtype), self.eps).to(x.dtype)


class Mixer(nn.Module, ABC):
    """What every variant is.

    `qk_source` says what the queries and keys are made of: the layer's own normalised input ("hidden"), that of the
    side stream ("side": row 0 of the batch), or the layer-normalised token embeddings ("embeddings").

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
    def forward(self, hidden: Tensor, source: Tensor) -> Tensor:
        """O, (B, L, d), of the normalised input `hidden` (B, L, d) and the `source` of queries and keys (B or 1, L, d)."""


class QKVMixer(Mixer):
    """A mixer with query, key, value and output projections, with Qwen2's names, biases and grouped queries.

    A subclass gives `attention_map_of` and `mix` on projected queries and keys. Shapes: q, k (B or 1, heads, L,
    head_dim) after the head norm (where `qk_norm`), RoPE (where `rotary`) and repetition of key heads; v (B, heads,
    L, head_dim).
    """

    rotary: ClassVar[bool] = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, bias = config.hidden_size, config.attention_bias
        kv_size = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(d, d, bias=bias)
        self.k_proj = nn.Linear(d, kv_size, bias=bias)
        self.v_proj = nn.Linear(d, kv_size, bias=bias)
        self.o_proj = nn.Linear(d, d, bias=False)
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

    def queries_keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """q, k of `source` (B, L, d), each (B, heads, L, head_dim), ready for a dot product."""
        q = self.q_norm(self._split(self.q_proj(source)))
        k = self.k_norm(self._split(self.k_proj(source)))
        if self.rotary:
            tables = rotary_tables(source.shape[1], self.config.head_dim, self.config.rope_theta, q)
            q, k = rotate(q, tables), rotate(k, tables)
        return q, self._repeat(k)

    def values(self, hidden: Tensor) -> Tensor:
        """v of `hidden` (B, L, d), (B, heads, L, head_dim)."""
        return self._repeat(self._split(self.v_proj(hidden)))

    def output(self, mixed: Tensor) -> Tensor:
        """The heads of `mixed` (B, heads, L, head_dim), joined and projected: (B, L, d)."""
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def attention_map(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        return self.attention_map_of(q.to(wide), k.to(wide))

    def raw_scores(self, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return scores(q, k)[..., ~future(source.shape[1], source.device)]

    def forward(self, hidden: Tensor, source: Tensor) -> Tensor:
        q, k = self.queries_keys(source)
        return self.output(self.mix(q, k, self.values(hidden)))

    @abstractmethod
    def attention_map_of(self, q: Tensor, k: Tensor) -> Tensor:
        """A (B, heads, L, L) of projected queries and keys: the definition."""

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A @ v, (B, heads, L, head_dim), by the fastest exact form."""

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def _repeat(self, x: Tensor) -> Tensor:
        group = self.config.num_attention_heads // self.config.kv_heads
        return x if group == 1 else x.repeat_interleave(group, dim=1)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """s = q·k / √dh, (B, heads, L, L), not masked."""
    return (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5


def future(length: int, device: torch.device) -> Tensor:
    """(L, L) boolean, true where j > i: what a causal map must not see."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
