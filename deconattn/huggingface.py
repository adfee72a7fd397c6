"""The model as transformers sees it: configuration, weights, generation, and the Auto classes.

Importing this module registers the model type, so that
`AutoModelForCausalLM.from_pretrained("results/runs/…/model")` and with it `lm_eval --model hf` find it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from deconattn.mixers._contract import RMSNorm
from deconattn.model import Decoder, ModelConfig, Skip, head_loss


class DeconAttnConfig(PreTrainedConfig):
    """Qwen2's configuration fields plus `variant`, `layout` and `qk_norm` (see `deconattn.model.ModelConfig`).

    Raises:
        UserError: an unknown variant or layout, or sizes that do not fit each other.
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

    def shape(self) -> ModelConfig:
        """The fields that the plain model is built from."""
        return ModelConfig.from_dict(self.to_dict())


class DeconAttnForCausalLM(PreTrainedModel, GenerationMixin):
    """Causal language model with any variant and layout.

    `skip` drops the simple layers of a trained hybrid ("skip") or only their mixers ("skip_mixer"), at evaluation.
    Generation runs the whole prefix for every token; there is no cache of keys and values.
    """

    config_class = DeconAttnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Block"]
    _supports_cache_class = False

    def __init__(self, config: DeconAttnConfig) -> None:
        super().__init__(config)
        shape = config.shape()
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        tied = {"lm_head.weight": "model.embed_tokens.weight"}
        self._tied_weights_keys = tied if config.tie_word_embeddings else {}
        self.skip: Skip | None = None
        self.post_init()

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

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
        **unsupported: Any,
    ) -> CausalLMOutput | tuple[Tensor, ...]:
        """Logits (B, L, V) of input_ids (B, L).

        `attention_mask` (B, L) may pad each row on the left or on the right: positions follow the text. `labels`
        (B, L), −100 where ignored, are shifted inside; `logits_to_keep` > 0 keeps the last positions only.

        Raises:
            ValueError: a mask with holes, or an argument that this model cannot honour.
        """
        rejected = [
            name
            for name, value in unsupported.items()
            if value is not None and value is not False and name != "cache_position"
        ]
        if rejected:
            raise ValueError(f"DeconAttnForCausalLM cannot honour {', '.join(sorted(rejected))}")
        order = _text_first(attention_mask, input_ids)
        if order is None:
            hidden = self.model(input_ids, self.skip)
        else:
            # Rows are moved so that text begins at position 0, and moved back: a causal model then never sees the padding.
            hidden = self.model(input_ids.gather(1, order), self.skip)
            hidden = hidden.gather(1, order.argsort(1).unsqueeze(-1).expand_as(hidden))
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            kept = targets != -100
            loss = head_loss(hidden[:, :-1].flatten(0, 1)[kept], self.lm_head.weight, targets[kept], "mean")
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """Every step of generation sees the whole prefix and asks for the last position."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask"), "logits_to_keep": 1}

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def _text_first(mask: Tensor | None, input_ids: Tensor) -> Tensor | None:
    """Per row, the order of positions (B, L) that puts the text before its padding; None when there is none to move."""
    if mask is None or bool(mask.all()):
        return None
    if mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, input_ids {tuple(input_ids.shape)}; they must agree"
        )
    mask = mask.bool()
    if bool((mask[:, 1:] != mask[:, :-1]).sum(1).gt(1).any()):
        raise ValueError("attention_mask has holes; padding may stand on the left or on the right of each row")
    return torch.argsort(~mask, dim=1, stable=True)


AutoConfig.register("deconattn", DeconAttnConfig)
AutoModelForCausalLM.register(DeconAttnConfig, DeconAttnForCausalLM)
