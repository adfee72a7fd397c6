"""The decoder around the mixers: Qwen2.5's, as a plain module (docs/method.md, "The base model").

State-dict names are those of transformers' Qwen2 (Qwen3's head norms where `qk_norm`); side streams are buffers of
`model`. Shapes: B batch, L length, d hidden size, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.errors import UserError
from deconattn.layers import FeedForward, RMSNorm, head_loss
from deconattn.layouts import is_standard
from deconattn.mixers.base import Mixer, QKVMixer
from deconattn.mixers.cache import CacheLengths, DecodingState, QueriesKeys, side_positions
from deconattn.nearest import not_one_of
from deconattn.side_stream import SideMemory

Skip = Literal["skip", "skip_mixer"]


class Block(nn.Module):
    """One pre-norm layer: mixer and feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, standard: bool) -> None:
        super().__init__()
        self.standard = standard
        self.self_attn: Mixer = mixers.find("standard" if standard else config.variant)(config)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size)
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
        mix: Callable[[Tensor, Tensor | QueriesKeys], Tensor] | None = None,
    ) -> Tensor:
        """Residual stream x and token embeddings E(t), both (B, L, d) → (B, L, d).

        `side` holds the side stream's queries and keys for this layer, where it is not row 0. `mix` is called in the mixer's
        place: its `step`, in decoding.
        """
        if skip == "skip" and not self.standard:
            return x
        if skip is None or self.standard:
            hidden, source = self.mixer_inputs(x, embeddings)
            x = x + (mix or self.self_attn)(hidden, source if side is None else side)
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
        # All relaxed layers are of one variant, so there is one side stream or none.
        streams = {block.self_attn.side_stream for block in self.blocks()} - {None}
        self.side_stream = streams.pop() if streams else None
        if self.side_stream == "random":
            self.register_buffer("side_embeddings", torch.zeros(config.max_position_embeddings, config.hidden_size))
        elif self.side_stream == "text":
            self.register_buffer("side_input_ids", torch.zeros(config.max_position_embeddings, dtype=torch.long))

    def blocks(self) -> list[Block]:
        """The layers, by their type."""
        return [block for block in self.layers if isinstance(block, Block)]

    def forward(
        self,
        input_ids: Tensor,
        skip: Skip | None = None,
        state: DecodingState | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states (B, L, d) of input_ids (B, L).

        With a `state`, the tokens stand behind those that it has seen, and the first `lengths` (B,) of each row, or all, are
        put into it.

        Raises:
            ValueError: a state of another number of rows, or one where gradients are recorded.
        """
        if state is not None:
            return self.step(input_ids, skip, state, lengths)
        side = self._side_queries_keys(input_ids.shape[1], skip)
        embeddings = x = self.embed(input_ids, skip) if side is None else self.embed_tokens(input_ids)
        for n, block in enumerate(self.layers):
            x = block(x, embeddings, skip, side and side[n])
        return self.norm(x[len(x) - len(input_ids) :])

    def step(self, input_ids: Tensor, skip: Skip | None, state: DecodingState, counts: Tensor | None = None) -> Tensor:
        """Final hidden states (B, n, d) of n more tokens a row, of which the first `counts` (B,), or all, are kept."""
        if torch.is_grad_enabled():
            raise ValueError("a decoding state is filled at inference, under torch.no_grad()")
        past = state.seen or CacheLengths.none(len(input_ids), input_ids.device)
        if len(input_ids) != len(past.rows):
            raise ValueError(f"input_ids has {len(input_ids)} rows, the decoding state {len(past.rows)}")
        side = self._side_queries_keys(past.most + input_ids.shape[1], skip, state)
        embeddings = x = self.embed_tokens(input_ids)
        for n, block in enumerate(self.blocks()):
            step = partial(block.self_attn.step, state=state.layers[n], past=past, counts=counts)
            x = block(x, embeddings, skip, side and side[n], step)
        state.seen, state.side = past.after(input_ids.shape[1], counts), side
        return self.norm(x)

    def new_state(self) -> DecodingState:
        """An empty state, which `forward` fills and extends."""
        return DecodingState([block.self_attn.new_state() for block in self.blocks()])

    def attention_maps(self, input_ids: Tensor) -> list[Tensor | None]:
        """A of every layer, (B or 1, heads, L, L), or None where a layer does not mix positions."""
        maps: list[Tensor | None] = []
        embeddings = x = self.embed(input_ids)
        for block in self.blocks():
            attention = block.self_attn.attention_map(block.mixer_inputs(x, embeddings)[1])
            # Row 0 of a standard layer's maps belongs to the side stream, not to a sequence.
            maps.append(attention if attention is None or attention.shape[0] == 1 else attention[-input_ids.shape[0] :])
            x = block(x, embeddings, None)
        return maps

    # ---- the side stream ------------------------------------------------------------------------------------------------
    def embed(self, input_ids: Tensor, skip: Skip | None = None) -> Tensor:
        """E(t) of input_ids (B, L): (B, L, d), or (B + 1, L, d) with the side stream as row 0.

        Raises:
            UserError: longer than the side stream.
        """
        embeddings = self.embed_tokens(input_ids)
        if self.side_stream is None or skip is not None:  # a skipped mixer reads no side stream
            return embeddings
        return torch.cat([self._side_row(input_ids.shape[1]), embeddings])

    def _side_row(self, length: int) -> Tensor:
        """The first `length` positions of the side stream's X⁰, (1, length, d)."""
        limit = self.config.max_position_embeddings
        if length > limit:
            raise UserError(
                f"a sequence of {length} tokens is longer than the side stream, which has {limit} positions"
            )
        if self.side_stream == "random":
            return self.side_embeddings[:length].to(self.embed_tokens.weight.dtype).unsqueeze(0)
        return self.embed_tokens(self.side_input_ids[:length]).unsqueeze(0)

    def _side_queries_keys(
        self, length: int, skip: Skip | None, state: DecodingState | None = None
    ) -> list[QueriesKeys | None] | None:
        """The side stream's queries and keys in each layer at inference. None without one, or if it runs as batch row 0.

        The side stream runs as batch row 0 when it needs gradients, and under torch.compile, which cannot check for changed
        weights. A decoding `state` has no row for it: compiled code then makes queries and keys anew.
        """
        if self.side_stream is None or skip is not None or torch.is_grad_enabled():
            return None
        self._side_row(length)  # raises if the text is too long
        if state and state.side and all(pair is None or pair[0].shape[2] >= length for pair in state.side):
            return state.side
        limit = self.config.max_position_embeddings
        if torch.compiler.is_compiling():
            return self._run_side_stream(side_positions(length, limit)) if state else None
        return self.side_memory.of([*self.parameters(), *self.buffers()], length, limit, self._run_side_stream)

    def _run_side_stream(self, length: int) -> list[QueriesKeys | None]:
        """q and k of the side stream's first `length` positions in every layer that reads them."""
        made: list[QueriesKeys | None] = []
        embeddings = x = self._side_row(length)
        for block in self.blocks():
            mixer = block.self_attn
            if isinstance(mixer, QKVMixer) and mixer.qk_source == "side":
                made.append(mixer.queries_keys(block.mixer_inputs(x, embeddings)[1]))
            else:
                made.append(None)
            x = block(x, embeddings, None, made[-1])
        return made

    def train(self, mode: bool = True) -> Decoder:
        """As every module's; what was kept of the side stream is forgotten."""
        self.side_memory.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        self.side_memory.clear()
        return super()._apply(fn, recurse)


class Skipping:
    """What whole models share: how much of a trained hybrid is left out, and what their head reads."""

    model: Decoder
    _skip: Skip | None = None

    @property
    def skip(self) -> Skip | None:
        """None; "skip" leaves out the relaxed layers, "skip_mixer" their mixers only.

        Raises:
            UserError: another value is set.
        """
        return self._skip

    @skip.setter
    def skip(self, mode: Skip | None) -> None:
        if mode is not None and mode not in get_args(Skip):
            raise UserError(f"{not_one_of(mode, 'skip', get_args(Skip))}; None leaves nothing out")
        self._skip = mode

    def final_hidden(self, input_ids: Tensor) -> Tensor:
        """What `forward` hands to `lm_head` for input_ids (B, L): (B, L, d)."""
        return self.model(input_ids, self.skip)


class LanguageModel(Skipping, nn.Module):
    """Decoder and head. `skip` drops the relaxed layers of a trained hybrid ("skip") or only their mixers ("skip_mixer")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits (B, L, V) of input_ids (B, L)."""
        return self.lm_head(self.final_hidden(input_ids))

    def loss(
        self, input_ids: Tensor, reduction: Literal["mean", "sum"] = "mean", scored: slice = slice(None)
    ) -> Tensor:
        """Cross-entropy of each next token, in nats, over the B·(L − 1) targets of rows (B, L), or the `scored` of each."""
        hidden = self.final_hidden(input_ids)[:, :-1][:, scored].flatten(0, 1)
        return head_loss(hidden, self.lm_head.weight, input_ids[:, 1:][:, scored].flatten(), reduction)


@torch.no_grad()
def initialise(model: LanguageModel, seed: int) -> None:
    """Draw the weights: N(0, initializer_range²) for matrices and ε, zeros for biases, ones for norms.

    Every tensor has its own generator, seeded by (seed, name). So tensors of one name start equal in all variants, and variants
    of one seed differ by their mechanism, not by their draw.
    """
    std = model.config.initializer_range
    drawn = [pair for pair in model.named_buffers() if pair[0].endswith("side_embeddings")]
    for name, tensor in [*model.named_parameters(), *drawn]:
        if name.endswith("bias"):
            tensor.zero_()
        elif tensor.dim() == 1:
            tensor.fill_(1.0)
        else:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)


def parameter_count(config: ModelConfig) -> int:
    """All parameters (side streams are not among them), counted on a model without numbers."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LanguageModel(config).parameters())
