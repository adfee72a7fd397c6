"""mlp: O = W_down( SiLU(W_gate H) ⊙ W_up H ), no queries, keys or values (SPEC §3).

Relaxes "token mixing" altogether: each position sees itself alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from deconattn.functions import gated_mlp
from deconattn.mixers._contract import Mixer, QKVMixer, QueriesKeys
from deconattn.mixers._costs import FLOAT, Costs
from deconattn.mixers._states import Nothing, Seen, State

if TYPE_CHECKING:
    from deconattn.model import ModelConfig


def inner_width(config: ModelConfig) -> int:
    """Width m whose 3·d·m parameters come as close as can be to those of standard attention in this model."""
    return max(1, round(QKVMixer.parameter_count(config) / (3 * config.hidden_size)))


class MLP(Mixer):
    """A second gated feed-forward block in the place of attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, width = config.hidden_size, inner_width(config)
        self.gate_proj = nn.Linear(d, width, bias=False)
        self.up_proj = nn.Linear(d, width, bias=False)
        self.down_proj = nn.Linear(width, d, bias=False)

    @classmethod
    def parameter_count(cls, config: ModelConfig) -> int:
        """3·d·m; off from standard attention by at most 1.5·d a layer."""
        return 3 * config.hidden_size * inner_width(config)

    def attention_map(self, source: Tensor) -> None:
        return None

    def raw_scores(self, source: Tensor) -> None:
        return None

    def forward(
        self,
        hidden: Tensor,
        source: Tensor | QueriesKeys,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        return gated_mlp(hidden, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)

    def new_state(self) -> State:
        return Nothing()

    def step(self, hidden: Tensor, source: Tensor | QueriesKeys, state: State, seen: Seen) -> Tensor:
        return self.forward(hidden, source)

    @classmethod
    def costs(cls, config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> Costs:
        """Three products of d·m a token, no state; held are gate and up."""
        width = inner_width(config)
        a_token = 6 * config.hidden_size * width
        prefill = batch * length * a_token
        return Costs(
            prefill_flops_square=prefill,
            prefill_flops_causal=prefill,
            prefill_flops=prefill,
            decode_flops=batch * a_token,
            activation_bytes=FLOAT * 2 * batch * length * width,
            state_bytes=0,
        )
