"""The shape of a model, in Qwen2's field names (docs/method.md, "The base model")."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from deconattn.errors import UserError
from deconattn.layouts import is_standard


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model, in Qwen2's field names, plus `variant`, `layout` and `qk_norm`.

    Raises:
        UserError: a size below 1, sizes that do not fit each other, or an unknown layout.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 2048
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    attention_bias: bool = True
    qk_norm: bool = False
    variant: str = "standard"
    layout: str = "uniform"

    def __post_init__(self) -> None:
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        for name, value in self.to_dict().items():
            if type(value) is int and value < 1:
                raise UserError(f"{name} is {value}; it is at least 1")
        d, heads, kv_heads = self.hidden_size, self.num_attention_heads, self.kv_heads
        if d % heads:
            raise UserError(f"hidden_size {d} is not a multiple of num_attention_heads {heads}")
        if heads % kv_heads:
            raise UserError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
        if self.head_dim % 2:
            raise UserError(
                f"the head size {self.head_dim} (hidden_size / num_attention_heads) is odd; RoPE needs an even one"
            )
        is_standard(self.layout, self.num_hidden_layers)

    @property
    def head_dim(self) -> int:
        """Size of one head, d / heads."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        assert self.num_key_value_heads is not None
        return self.num_key_value_heads

    @property
    def kv_size(self) -> int:
        """Width of all keys, or of all values."""
        return self.kv_heads * self.head_dim

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """Take the fields that belong to the model from a larger dictionary (a spec, a transformers configuration)."""
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a config.json holds them."""
        return dataclasses.asdict(self)
