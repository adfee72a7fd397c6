"""What mixers and whole models cost: the formulas of the variants' files, summed over layers, with feed-forward and head.

Convention: `deconattn.mixers.formulas`, a multiply-add is 2 FLOPs and only matrix products are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.layouts import is_standard
from deconattn.mixers.formulas import FLOAT, Flops


@dataclass(frozen=True)
class Costs:
    """One layer's mixer: the fields of `Flops`, and the bytes that decoding holds of L tokens."""

    prefill_flops_square: int
    prefill_flops_causal: int
    prefill_flops: int
    decode_flops: int
    state_bytes: int


def mixer_costs(
    config: ModelConfig, batch: int, length: int, itemsize: int = FLOAT, variant: str | None = None
) -> Costs:
    """Costs of one mixer of `variant` (default: the config's), `itemsize` bytes a number."""
    module = mixers.module_of(variant or config.variant)
    flops: Flops = module.flops(config, batch, length)
    held: int = module.state_bytes(config, batch, length, itemsize)
    return Costs(flops.prefill_square, flops.prefill_causal, flops.prefill, flops.decode, held)


def mixer_parameters(config: ModelConfig) -> int:
    """Parameters of one mixer, counted without allocating it."""
    with torch.device("meta"):
        mixer = mixers.find(config.variant)(config)
    return sum(parameter.numel() for parameter in mixer.parameters())


def layer_costs(config: ModelConfig, batch: int, length: int, itemsize: int = FLOAT) -> list[Costs]:
    """Costs of every layer's mixer, for `batch` sequences of `length` tokens, `itemsize` bytes a number."""
    simple, standard = (mixer_costs(config, batch, length, itemsize, name) for name in (None, "standard"))
    return [standard if kept else simple for kept in is_standard(config.layout, config.num_hidden_layers)]


def training_flops(config: ModelConfig, batch: int, length: int) -> int:
    """Forward and backward of `batch` sequences of `length` tokens, pairs j ≤ i alone: three times the forward.

    What a model needs, not what an implementation spends (recomputation, the square's upper half): the numerator of
    the model FLOPs utilisation (MFU; Chowdhery et al., 2022, appendix B). A side stream is one more row of the batch,
    in all but the head.
    """
    kept = is_standard(config.layout, config.num_hidden_layers)
    side = mixers.find(config.variant).side_stream is not None and not all(kept)
    rows = batch + 1 if side else batch
    mixing = sum(layer.prefill_flops_causal for layer in layer_costs(config, rows, length))
    feed_forward = 6 * rows * length * config.hidden_size * config.intermediate_size * config.num_hidden_layers
    head = 2 * batch * length * config.hidden_size * config.vocab_size
    return 3 * (mixing + feed_forward + head)


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int = FLOAT) -> int:
    """Bytes that decoding holds of `batch` sequences of `length` tokens, in all layers.

    A side stream's queries and keys are among them, once a layer that reads them, for however many sequences.
    """
    return sum(layer.state_bytes for layer in layer_costs(config, batch, length, itemsize))
