"""The model as transformers sees it: configuration, weights, generation, and the Auto classes.

Importing this module registers the model type, so that `AutoModelForCausalLM.from_pretrained("results/runs/…/model")` and
with it `lm_eval --model hf` find it. `import deconattn` sees to it that it is imported where transformers is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

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
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.decoder import Decoder, Skipping
from deconattn.layers import RMSNorm, head_loss
from deconattn.mixers.cache import DecodingState

# Sizes of a configuration that is made without any, as transformers does: the paper's smallest model.
SMALLEST = dict(vocab_size=50_304, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8)


class DeconAttnConfig(PreTrainedConfig):
    """The fields of `deconattn.config.ModelConfig` as transformers' configuration.

    Raises:
        UserError: an unknown variant or layout, a size below 1, or sizes that do not fit each other.
    """

    model_type = "deconattn"

    def __init__(self, **fields: Any) -> None:
        shape = ModelConfig.from_dict({**SMALLEST, **fields})
        mixers.find(shape.variant)  # a misspelt name is reported here, not when a model is made of it
        super().__init__(**{**fields, **shape.to_dict()})

    def shape(self) -> ModelConfig:
        """The fields that the plain model is built from."""
        return ModelConfig.from_dict(self.to_dict())


class DeconAttnCache(Cache):
    """What a DeconAttnForCausalLM keeps of the past: keys and values, values alone, or running sums, by layer.

    The model makes it (`model.new_cache()`, or by itself when `use_cache`) and extends it; rows may be of unequal lengths.
    """

    def __init__(self, new_state: Callable[[], DecodingState]) -> None:
        # transformers' layers hold keys and values; here each mixer has its own kind of state.
        super().__init__(layers=[])
        self.new_state = new_state
        self.state = new_state()

    @property
    def is_croppable(self) -> bool:
        """Whether tokens can be taken back."""
        return self.state.croppable

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns seen so far, padding included."""
        return 0 if self.state.seen is None else self.state.seen.most + self.state.padding

    def nbytes(self) -> int:
        """Bytes held, the side stream's queries and keys among them (see `DecodingState.nbytes`)."""
        return self.state.nbytes()

    def reset(self) -> None:
        """Forget everything."""
        self.state = self.new_state()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was: the beams that survive."""
        self.state.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep rows `indices` of the batch."""
        self.state.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        if self.state.seen is not None:
            rows = self.state.seen.rows
            self.state.select(torch.arange(len(rows), device=rows.device).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last −`tokens_to_remove` tokens of every row (transformers counts them below zero).

        Raises:
            ValueError: a positive number, more tokens than the shortest row has, or running sums, which cannot forget.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes a number of tokens below zero, not {tokens_to_remove}")
        self.state.crop(-tokens_to_remove)


class DeconAttnForCausalLM(Skipping, PreTrainedModel, GenerationMixin):
    """Causal language model with any variant and layout.

    Generation (greedy, sampling, beams) keeps what each variant needs of the past in a `DeconAttnCache`; assisted generation
    needs tokens to be taken back, which running sums do not allow. `skip`: see `Skipping`.
    """

    config_class = DeconAttnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Block"]

    def __init__(self, config: DeconAttnConfig) -> None:
        super().__init__(config)
        shape = config.shape()
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        tied = {"lm_head.weight": "model.embed_tokens.weight"}
        self._tied_weights_keys = tied if shape.tie_word_embeddings else {}
        # What transformers calls a model whose past cannot be cropped.
        self._is_stateful = not self.model.new_state().croppable
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
        return DeconAttnCache(self.model.new_state)

    def _init_weights(self, module: nn.Module) -> None:
        """Weights that a checkpoint lacks: as in training, N(0, initializer_range²), zero biases, norms of one."""
        std = self.model.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Decoder) and module.side_stream == "random":
            nn.init.normal_(module.side_embeddings, std=std)
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
        At padding positions hidden states are 0: a model that reads text alone has nothing to say there.
        `labels` (B, L), −100 where ignored, are shifted inside; a label whose predicting position is padding is ignored too.
        The loss is their mean, or their sum over `num_items_in_batch`.
        `logits_to_keep` keeps the last positions only, or those whose indices a tensor holds; 0 keeps all. `use_cache` makes a
        cache where none is given. `position_ids` may be given where they are those that the model uses anyway.

        Raises:
            ValueError: a mask with holes, of another shape, without text in a row or at odds with the cache; another cache, one
                of another number of rows or with gradients; other positions, or another argument that cannot be honoured.
        """
        positions = others.pop("position_ids", None)
        others.pop("cache_position", None)
        if rejected := sorted(name for name, value in others.items() if value is not None and value is not False):
            raise ValueError(f"DeconAttnForCausalLM cannot honour {', '.join(rejected)}")
        cache = self._cache(past_key_values, use_cache)
        state = None if cache is None else cache.state
        text = _padded_text(attention_mask, input_ids, state)
        if positions is not None:
            _check_positions(positions, text, input_ids, state)
        if text is None:
            hidden = self.model(input_ids, self.skip, state)
        else:
            hidden = self._hidden_of_text(input_ids, text, state)
        logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            kept = targets != -100
            if text is not None:
                kept &= text[:, :-1].flatten()
            reduction: Literal["mean", "sum"] = "mean" if num_items_in_batch is None else "sum"
            loss = head_loss(hidden[:, :-1].flatten(0, 1)[kept], self.lm_head.weight, targets[kept], reduction)
            if num_items_in_batch is not None:
                # Counted over the batches of an update, which may lie on several devices.
                loss = loss / torch.as_tensor(num_items_in_batch, device=loss.device)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)
        return output.to_tuple() if return_dict is False else output

    def _hidden_of_text(self, input_ids: Tensor, text: Tensor, state: DecodingState | None) -> Tensor:
        """Final hidden states (B, L, d), 0 where `text` (B, L) is false.

        Rows are moved so that text begins at position 0, and moved back: a causal model then never sees the padding. Columns
        that are padding in every row are cut off, so that positions, and how far a side stream must reach, follow the text alone.
        """
        lengths, width = text.sum(1), text.shape[1]
        longest = int(lengths.max())
        order = torch.argsort(~text, dim=1, stable=True)
        hidden = self.model(input_ids.gather(1, order[:, :longest]), self.skip, state, lengths)
        if state is not None:
            state.padding = width - longest
        hidden = nn.functional.pad(hidden, (0, 0, 0, width - longest))
        hidden = hidden.gather(1, order.argsort(1).unsqueeze(-1).expand_as(hidden))
        # Padding in front of the text has read the whole row.
        return hidden.masked_fill(~text.unsqueeze(-1), 0.0)

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
        self.model.embed_tokens = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def _padded_text(mask: Tensor | None, input_ids: Tensor, state: DecodingState | None) -> Tensor | None:
    """Where input_ids (B, L) hold text, if a `mask` shows that some are padding; None if all are text."""
    if mask is None:
        return None
    (rows, new), seen = input_ids.shape, None if state is None else state.seen
    past = 0 if state is None or seen is None else seen.most + state.padding
    shapes = [(rows, width) for width in sorted({new, past + new})]
    if mask.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}; for these input_ids it must have {wanted}")
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
    return mask


def _check_positions(given: Tensor, text: Tensor | None, input_ids: Tensor, state: DecodingState | None) -> None:
    """Refuse positions that are not those that the model uses for `text`, all of input_ids where None."""
    if text is None:
        text = torch.ones_like(input_ids, dtype=torch.bool)
    expected = text.cumsum(1) - 1
    if state is not None and state.seen is not None:
        expected = expected + state.seen.rows[:, None]
    shapes = (expected.shape, expected[:1].shape, expected[0].shape)
    if given.shape not in shapes or bool(((given != expected) & text).any()):
        raise ValueError(
            "position_ids differ from the positions that this model uses: each row's text counts from 0, without its padding, "
            "and goes on where a cache ends"
        )


AutoConfig.register("deconattn", DeconAttnConfig)
AutoModelForCausalLM.register(DeconAttnConfig, DeconAttnForCausalLM)
