"""The decoder around the mixers: Qwen2.5's, as a plain module that training needs and that imports no transformers (SPEC §2, §3).

State-dict names are those of transformers' Qwen2 (Qwen3's head norms where `qk_norm`); side streams are buffers of
`model`. Shapes: B batch, L length, d hidden size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from deconattn import mixers
from deconattn.decoding import DecodingState, SideMemory
from deconattn.errors import UserError
from deconattn.functions import gated_mlp
from deconattn.head import head_loss
from deconattn.layouts import is_standard
from deconattn.mixers._contract import Mixer, QKVMixer, QueriesKeys, RMSNorm
from deconattn.mixers._scores import side_positions
from deconattn.mixers._states import Seen, State
from deconattn.nearest import not_one_of
from deconattn.products import Linear

Skip = Literal["skip", "skip_mixer"]

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


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
        for name in SIZES:
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.kv_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads {self.kv_heads}"
            )
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

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """Take the fields that belong to the model from a larger dictionary (a spec, a transformers configuration)."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in fields.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a config.json holds them."""
        return dataclasses.asdict(self)


class FeedForward(nn.Module):
    """SwiGLU: W_down( SiLU(W_gate x) ⊙ W_up x ) (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(d, inner, bias=False)
        self.up_proj = nn.Linear(d, inner, bias=False)
        self.down_proj = nn.Linear(inner, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return gated_mlp(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


class Block(nn.Module):
    """One pre-norm layer: mixer and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, standard: bool) -> None:
        super().__init__()
        self.standard = standard
        self.self_attn: Mixer = mixers.find("standard" if standard else config.variant)(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def mixer_inputs(self, x: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """What the mixer reads: its normalised input (B, L, d) and the source of queries and keys (B or 1, L, d)."""
        hidden = self.input_layernorm(x)
        if self.self_attn.qk_source == "side":
            return hidden, hidden[:1]
        if self.self_attn.qk_source == "embeddings":
            return hidden, self.input_layernorm(embeddings)
        return hidden, hidden

    def forward(
        self,
        x: Tensor,
        embeddings: Tensor,
        skip: Skip | None,
        side: QueriesKeys | None = None,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Residual stream x and token embeddings E(t), both (B, L, d) → (B, L, d).

        `side` are the side stream's queries and keys of this layer, where it is not row 0; `state` is filled.
        """
        if skip == "skip" and not self.standard:
            return x
        if skip is None or self.standard:
            hidden, source = self.mixer_inputs(x, embeddings)
            length = x.shape[1]
            qk = source if side is None else (side[0][:, :, :length], side[1][:, :, :length])
            x = x + self.self_attn(hidden, qk, state, lengths)
        return x + self.mlp(self.post_attention_layernorm(x))

    def step(
        self, x: Tensor, embeddings: Tensor, skip: Skip | None, side: QueriesKeys | None, state: State, seen: Seen
    ) -> Tensor:
        """As `forward` for one more token a row, x and embeddings (B, 1, d), behind those that `state` has seen."""
        if skip == "skip" and not self.standard:
            return x
        if skip is None or self.standard:
            hidden, source = self.mixer_inputs(x, embeddings)
            x = x + self.self_attn.step(hidden, source if side is None else side, state, seen)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embeddings, blocks, final norm.

    Where the variant has a side stream, it is row 0 of the batch: it goes through the same blocks as every
    sequence, through standard layers too, and is cut off at the end. Without gradients it is computed once, alone,
    and its queries and keys are kept.
    """

    side_embeddings: Tensor
    side_input_ids: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        kinds = is_standard(config.layout, config.num_hidden_layers)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, kind or config.variant == "standard") for kind in kinds)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.side_memory = SideMemory()
        # All simple layers are of one variant, so there is one side stream or none.
        streams = {block.self_attn.side_stream for block in self._blocks()} - {None}
        self.side_stream = streams.pop() if streams else None
        if self.side_stream == "random":
            self.register_buffer("side_embeddings", torch.zeros(config.max_position_embeddings, config.hidden_size))
        elif self.side_stream == "text":
            self.register_buffer("side_input_ids", torch.zeros(config.max_position_embeddings, dtype=torch.long))

    def train(self, mode: bool = True) -> Decoder:
        """As every module's; and what was kept of the side stream is forgotten, as not every optimiser tells that it updates."""
        self.side_memory = SideMemory()
        return super().train(mode)

    def _blocks(self) -> list[Block]:
        return [block for block in self.layers if isinstance(block, Block)]

    def embed(self, input_ids: Tensor, skip: Skip | None = None) -> Tensor:
        """E(t) of input_ids (B, L): (B, L, d), or (B + 1, L, d) with the side stream as row 0.

        Raises:
            UserError: longer than the side stream.
        """
        embeddings = self.embed_tokens(input_ids)
        if not self._side_is_read(skip):
            return embeddings
        return torch.cat([self._side_row(input_ids.shape[1], embeddings.dtype), embeddings])

    def _side_is_read(self, skip: Skip | None) -> bool:
        return self.side_stream is not None and skip is None  # a skipped mixer reads no side stream

    def _side_row(self, length: int, dtype: torch.dtype) -> Tensor:
        """The first `length` positions of the side stream's X⁰, (1, length, d)."""
        limit = self.config.max_position_embeddings
        if length > limit:
            raise UserError(
                f"a sequence of {length} tokens is longer than the side stream, which has {limit} positions"
            )
        if self.side_stream == "random":
            return self.side_embeddings[:length].to(dtype).unsqueeze(0)
        return self.embed_tokens(self.side_input_ids[:length]).unsqueeze(0)

    def _side_queries_keys(self, length: int) -> list[QueriesKeys | None]:
        """q and k of the side stream's first `length` positions in every layer that reads them."""
        made: list[QueriesKeys | None] = []
        embeddings = x = self._side_row(length, self.embed_tokens.weight.dtype)
        for block in self._blocks():
            mixer = block.self_attn
            if isinstance(mixer, QKVMixer) and mixer.qk_source == "side":
                made.append(mixer.queries_keys(block.mixer_inputs(x, embeddings)[1]))
            else:
                made.append(None)
            x = block(x, embeddings, None, made[-1])
        return made

    def _remembered(self, length: int, skip: Skip | None, kept: bool) -> list[QueriesKeys | None] | None:
        """At inference, the side stream's queries and keys; None where there is none, or it goes along as row 0.

        Row 0 it is where gradients go through it, and where code is compiled, which cannot look whether weights have changed.
        A decoding state (`kept`) has no row for it, so that compiled code then makes queries and keys anew.
        """
        if not self._side_is_read(skip) or torch.is_grad_enabled():
            return None
        self._side_row(length, torch.float32)  # long enough?
        if not torch.compiler.is_compiling():
            return self.side_memory.of(self, length, self._side_queries_keys)
        return self._side_queries_keys(side_positions(self.config, length)) if kept else None

    def new_state(self) -> DecodingState:
        """An empty state, which `forward` fills and extends."""
        return DecodingState([block.self_attn.new_state() for block in self._blocks()])

    def forward(
        self,
        input_ids: Tensor,
        skip: Skip | None = None,
        state: DecodingState | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states (B, L, d) of input_ids (B, L).

        With a `state`, the tokens stand behind those that it has seen, and are put into it: of a new one the first `lengths`
        (B,) of each row, or all. States hold no gradient.

        Raises:
            ValueError: a state of another number of rows, or one to be filled where gradients are recorded.
        """
        if state is not None and state.seen is not None:
            if len(input_ids) != len(state.seen.rows):
                raise ValueError(f"input_ids has {len(input_ids)} rows, the decoding state {len(state.seen.rows)}")
            return torch.cat([self.step(token, skip, state) for token in input_ids.split(1, dim=1)], dim=1)
        side = self._remembered(input_ids.shape[1], skip, state is not None)
        embeddings = x = self.embed(input_ids, skip) if side is None else self.embed_tokens(input_ids)
        if state is not None and x.shape[0] != input_ids.shape[0]:
            raise ValueError("a decoding state is filled at inference, under torch.no_grad()")
        for n, block in enumerate(self.layers):
            x = block(x, embeddings, skip, side and side[n], state and state.layers[n], lengths)
        if state is not None:
            state.begin(len(input_ids), input_ids.shape[1], lengths, x.device, side)
        return self.norm(x[len(x) - len(input_ids) :])

    @torch.no_grad()
    def step(self, input_ids: Tensor, skip: Skip | None, state: DecodingState) -> Tensor:
        """Final hidden state (B, 1, d) of one more token a row, input_ids (B, 1)."""
        assert state.seen is not None
        side = state.side_for(state.seen.most + 1) or self._remembered(state.seen.most + 1, skip, True)
        state.side = side
        embeddings = x = self.embed_tokens(input_ids)
        for n, block in enumerate(self._blocks()):
            x = block.step(x, embeddings, skip, side[n] if side else None, state.layers[n], state.seen)
        state.seen = state.seen.after()
        return self.norm(x)

    def attention_maps(self, input_ids: Tensor) -> list[Tensor | None]:
        """A of every layer, (B or 1, heads, L, L), or None where a layer does not mix positions."""
        maps: list[Tensor | None] = []
        embeddings = x = self.embed(input_ids)
        for block in self._blocks():
            attention = block.self_attn.attention_map(block.mixer_inputs(x, embeddings)[1])
            # Row 0 of a standard layer's maps belongs to the side stream, not to a sequence.
            maps.append(attention if attention is None or attention.shape[0] == 1 else attention[-input_ids.shape[0] :])
            x = block(x, embeddings, None)
        return maps


class Skipping:
    """A model whose simple layers, or their mixers alone, can be left out: `skip` is "skip", "skip_mixer" or None."""

    _skip: Skip | None = None

    @property
    def skip(self) -> Skip | None:
        """What is left out; anything else that is put here is a UserError."""
        return self._skip

    @skip.setter
    def skip(self, mode: Skip | None) -> None:
        if mode is not None and mode not in get_args(Skip):
            raise UserError(f"{not_one_of(mode, 'skip', get_args(Skip))}; None leaves nothing out")
        self._skip = mode


class LanguageModel(Skipping, nn.Module):
    """Decoder and head. `skip` drops the simple layers of a trained hybrid ("skip") or only their mixers ("skip_mixer")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits (B, L, V) of input_ids (B, L)."""
        return self.lm_head(self.model(input_ids, self.skip))

    def loss(self, input_ids: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Cross-entropy of each next token, in nats, over the B·(L − 1) targets of packed rows (B, L)."""
        hidden = self.model(input_ids, self.skip)[:, :-1].flatten(0, 1)
        return head_loss(hidden, self.lm_head.weight, input_ids[:, 1:].flatten(), reduction)

    def attention_maps(self, input_ids: Tensor) -> list[Tensor | None]:
        """A of every layer (see `Decoder.attention_maps`)."""
        return self.model.attention_maps(input_ids)


@torch.no_grad()
def initialise(model: LanguageModel, seed: int) -> None:
    """Draw the weights: N(0, initializer_range²) for matrices and ε, zeros for biases, ones for norms.

    Every tensor has a generator of its own, seeded by (seed, name): tensors of one name start equal in all
    variants, whatever else a variant draws, so that variants of one seed differ by their mechanism and not by their
    draw.
    """
    std = model.config.initializer_range
    tensors = dict(model.named_parameters()) | {
        name: buffer for name, buffer in model.named_buffers() if name.endswith("side_embeddings")
    }
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensor.zero_()
        elif tensor.dim() == 1:
            tensor.fill_(1.0)
        else:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)


def parameter_count(config: ModelConfig) -> int:
    """All parameters by formula: embeddings, head, norms, feed-forward and mixers (side streams are not parameters)."""
    d, layers = config.hidden_size, config.num_hidden_layers
    embeddings = config.vocab_size * d * (1 if config.tie_word_embeddings else 2)
    per_layer = 3 * d * config.intermediate_size + 2 * d
    simple = mixers.find(config.variant).parameter_count(config)
    standard = mixers.find("standard").parameter_count(config)
    mixing = sum(standard if kind else simple for kind in is_standard(config.layout, layers))
    return embeddings + layers * per_layer + d + mixing
