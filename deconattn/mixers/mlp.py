"""mlp: O = W_down( SiLU(W_gate H) ⊙ W_up H ), no queries, keys or values (docs/method.md).

Relaxes "token mixing" altogether: each position sees itself alone.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deconattn.config import ModelConfig
from deconattn.mixers.base import Mixer
from deconattn.mixers.cache import CacheLengths, QueriesKeys, State
from deconattn.mixers.formulas import Flops


def inner_width(config: ModelConfig) -> int:
    """Width m whose 3·d·m parameters come as close as can be to those of standard attention in this model."""
    d, kv_size = config.hidden_size, config.kv_size
    biases = (d + 2 * kv_size) if config.attention_bias else 0
    norms = 2 * config.head_dim if config.qk_norm else 0
    return max(1, round((2 * d * d + 2 * d * kv_size + biases + norms) / (3 * d)))


class MLP(Mixer):
    """A second gated feed-forward block in the place of attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, width = config.hidden_size, inner_width(config)
        self.gate_proj = nn.Linear(d, width, bias=False)
        self.up_proj = nn.Linear(d, width, bias=False)
        self.down_proj = nn.Linear(width, d, bias=False)

    def attention_map(self, source: Tensor) -> None:
        return None

    def forward(self, hidden: Tensor, source: Tensor | QueriesKeys) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))

    def new_state(self) -> State:
        return State(croppable=True)  # nothing is kept

    def step(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State,
        past: CacheLengths,
        counts: Tensor | None = None,
    ) -> Tensor:
        return self.forward(hidden, source)


def flops(config: ModelConfig, batch: int, length: int) -> Flops:
    """Three products of d·m a token."""
    a_token = 6 * config.hidden_size * inner_width(config)
    prefill = batch * length * a_token
    return Flops(prefill_square=prefill, prefill_causal=prefill, prefill=prefill, decode=batch * a_token)


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int) -> int:
    """Nothing."""
    return 0
