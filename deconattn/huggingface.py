"""The model as transformers sees it: configuration, weights, generation, and the Auto classes.

Importing this module registers the model type, so that
`AutoModelForCausalLM.from_pretrained("results/runs/…/model")` and with it `lm_eval --model hf` find it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from deconattn import mixers
from deconattn.cache import DeconAttnCache
from deconattn.decoding import DecodingState
from deconattn.head import head_loss
from deconattn.mixers._contract import RMSNorm
from deconattn.model import Decoder, ModelConfig, Skipping
from deconattn.products import Linear


class DeconAttnConfig(PreTrainedConfig):
    """Qwen2's configuration fields plus `variant`, `layout` and `qk_norm` (see `deconattn.model.ModelConfig`).

    Raises:
        UserError: an unknown variant or layout, a size below 1, or sizes that do not fit each other.
    """

    model_type = "deconattn"

    vocab_size: int = 50_304
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
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

    def __post_init__(self, **others: Any) -> None:
        super().__post_init__(**others)
        # Here, so that a misspelt name is told where it stands and not when a model is made of it.
        mixers.find(self.shape().variant)

    def shape(self) -> ModelConfig:
        """The fields that the plain model is built from."""
        return ModelConfig.from_dict(self.to_dict())


class DeconAttnForCausalLM(Skipping, PreTrainedModel, GenerationMixin):
    """Causal language model with any variant and layout.

    `skip` drops the simple layers of a trained hybrid ("skip") or only their mixers ("skip_mixer"), at evaluation.
    Generation keeps what each variant needs of the past in a `DeconAttnCache`: greedy, sampling, beams; assisted where
    tokens can be taken back, which running sums do not allow.
    """

    config_class = DeconAttnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Block"]

    def __init__(self, config: DeconAttnConfig) -> None:
        super().__init__(config)
        shape = config.shape()
        self.model = Decoder(shape)
        self.lm_head = Linear(shape.hidden_size, shape.vocab_size, bias=False)
        tied = {"lm_head.weight": "model.embed_tokens.weight"}
        self._tied_weights_keys = tied if config.tie_word_embeddings else {}
        # What transformers calls a model whose past cannot be cropped.
        self._is_stateful = not self.new_cache().is_croppable
        self.post_init()

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> bool:
        """In the place of transformers' choice among its own caches; whether one was made."""
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation {generation_config.cache_implementation!r}: this model keeps a DeconAttnCache"
            )
        makes = bool(generation_config.use_cache) and model_kwargs.get("past_key_values") is None
        if makes:
            model_kwargs["past_key_values"] = self.new_cache()
        return makes

    def new_cache(self) -> DeconAttnCache:
        """An empty cache for this model's variant and layout."""
        return DeconAttnCache(self.model.new_state())

    def _init_weights(self, module: nn.Module) -> None:
        """Weights that a checkpoint lacks: as in training, N(0, initializer_range²), zero biases, norms of one."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Decoder) and module.side_stream == "random":
            nn.init.normal_(module.side_embeddings, std=self.config.initializer_range)
        elif isinstance(module, Decoder) and module.side_stream == "text":
            nn.init.zeros_(module.side_input_ids)  # not what the memory held before: that need not even be tokens

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
        past_key_values: DeconAttnCache | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits (B, L, V) of input_ids (B, L), which stand behind what `past_key_values` has seen.

        `attention_mask` (B, L), or (B, past + L), may pad each row on the left or on the right: positions follow the text.
        `labels` (B, L), −100 where ignored, are shifted inside; the loss is their mean, or their sum over `num_items_in_batch`.
        `logits_to_keep` keeps the last positions only, or those whose indices a tensor holds; 0 keeps all. `use_cache` makes a
        cache where none is given. `position_ids` may be given where they are those that the model uses anyway.

        Raises:
            ValueError: a mask with holes, of another shape, without text in a row or at odds with the cache; another cache, one
                of another number of rows or with gradients; other positions, or another argument that cannot be honoured.
        """
        positions = others.pop("position_ids", None)
        rejected = [
            name
            for name, value in others.items()
            if value is not None and value is not False and name != "cache_position"
        ]
        if rejected:
            raise ValueError(f"DeconAttnForCausalLM cannot honour {', '.join(sorted(rejected))}")
        cache = self._cache(past_key_values, use_cache)
        state = cache.state if cache else None
        order = _text_first(attention_mask, input_ids, state)
        if positions is not None:
            _check_positions(positions, attention_mask if order is not None else None, input_ids, state)
        if order is None:
            hidden = self.model(input_ids, self.skip, state)
        else:
            assert attention_mask is not None
            # Rows are moved so that text begins at position 0, and moved back: a causal model then never sees the padding.
            # What all rows pad is cut off, so that positions, and what a side stream is asked for, follow the text alone.
            lengths, width = attention_mask.bool().sum(1), input_ids.shape[1]
            longest = int(lengths.max())
            hidden = self.model(input_ids.gather(1, order[:, :longest]), self.skip, state, lengths)
            if state is not None:
                state.padding = width - longest
            hidden = nn.functional.pad(hidden, (0, 0, 0, width - longest))
            hidden = hidden.gather(1, order.argsort(1).unsqueeze(-1).expand_as(hidden))
        logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            kept = targets != -100
            reduction: Literal["mean", "sum"] = "mean" if num_items_in_batch is None else "sum"
            loss = head_loss(hidden[:, :-1].flatten(0, 1)[kept], self.lm_head.weight, targets[kept], reduction)
            if num_items_in_batch is not None:
                # Counted over the batches of an update, which may lie on several devices.
                loss = loss / torch.as_tensor(num_items_in_batch, device=loss.device)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)
        return output.to_tuple() if return_dict is False else output

    def _cache(self, given: DeconAttnCache | None, wanted: bool | None) -> DeconAttnCache | None:
        if given is None and not wanted:
            return None
        if given is not None and not isinstance(given, DeconAttnCache):
            raise ValueError(f"past_key_values is a {type(given).__name__}; this model keeps a DeconAttnCache")
        if torch.is_grad_enabled():
            raise ValueError("a cache holds no gradients: use_cache and past_key_values are for torch.no_grad()")
        return self.new_cache() if given is None else given

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def _text_first(mask: Tensor | None, input_ids: Tensor, state: DecodingState | None) -> Tensor | None:
    """Per row, the order of positions (B, L) that puts the text before its padding; None when there is none to move."""
    if mask is None:
        return None
    new, seen = input_ids.shape[1], state.seen if state is not None else None
    past = 0 if state is None or seen is None else seen.most + state.padding
    rows, allowed = len(input_ids), {new, past + new}
    if mask.shape not in [(rows, width) for width in allowed]:
        shapes = " or ".join(str((rows, width)) for width in sorted(allowed))
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}; for these input_ids it must have {shapes}")
    mask = mask.bool()
    if seen is not None:
        # The cache knows how long each row is; a mask may repeat it.
        if not bool(mask[:, -new:].all()):
            raise ValueError("attention_mask pads tokens behind those of the cache; only the first ones may be padded")
        if mask.shape[1] > new and len(seen.rows) == rows and not torch.equal(mask[:, :past].sum(1), seen.rows):
            raise ValueError(
                f"attention_mask shows {mask[:, :past].sum(1).tolist()} tokens a row of what the cache has seen, "
                f"which are {seen.rows.tolist()}"
            )
        return None
    if bool(mask.all()):
        return None
    if not bool(mask.any(1).all()):
        empty = (~mask.any(1)).nonzero().flatten().tolist()
        raise ValueError(f"attention_mask leaves no text in rows {empty}; each row has at least one token")
    if bool((mask[:, 1:] != mask[:, :-1]).sum(1).gt(1).any()):
        raise ValueError("attention_mask has holes; padding may stand on the left or on the right of each row")
    return torch.argsort(~mask, dim=1, stable=True)


def _check_positions(given: Tensor, mask: Tensor | None, input_ids: Tensor, state: DecodingState | None) -> None:
    """Refuse positions of text that are not those that the model uses; a `mask` (B, L) is that of rows with padding."""
    if mask is not None:
        expected, text = mask.bool().cumsum(1) - 1, mask.bool()
    else:
        expected = torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
        if state is not None and state.seen is not None:
            expected = state.seen.rows[:, None] + expected[:1]
        text = torch.ones_like(expected, dtype=torch.bool)
    if given.shape not in (expected.shape, expected[:1].shape, expected[0].shape) or bool(
        ((given != expected) & text).any()
    ):
        raise ValueError(
            "position_ids differ from the positions that this model uses: each row's text counts from 0, padding not at all, "
            "and goes on where a cache ends"
        )


AutoConfig.register("deconattn", DeconAttnConfig)
AutoModelForCausalLM.register(DeconAttnConfig, DeconAttnForCausalLM)
