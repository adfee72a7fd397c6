"""What a whole model costs: the mixers' formulas summed over its layers, with feed-forward and head.

Convention: `deconattn.mixers._costs`, a multiply-add is 2 FLOPs and matrix products alone are counted.
"""

from __future__ import annotations

from deconattn import mixers
from deconattn.layouts import is_standard
from deconattn.mixers._costs import Costs
from deconattn.model import ModelConfig


def layer_costs(config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> list[Costs]:
    """Costs of every layer's mixer, for `batch` sequences of `length` tokens, `itemsize` bytes a number."""
    kinds = {standard: mixers.find("standard" if standard else config.variant) for standard in (True, False)}
    costs = {standard: mixer.costs(config, batch, length, itemsize) for standard, mixer in kinds.items()}
    return [costs[standard] for standard in is_standard(config.layout, config.num_hidden_layers)]


def feed_forward_flops(config: ModelConfig, tokens: int) -> int:
    """Three products of (d, intermediate) a layer: 6·tokens·d·intermediate·layers."""
    return 6 * tokens * config.hidden_size * config.intermediate_size * config.num_hidden_layers


def head_flops(config: ModelConfig, tokens: int) -> int:
    """2·tokens·d·V."""
    return 2 * tokens * config.hidden_size * config.vocab_size


def training_flops(config: ModelConfig, batch: int, length: int) -> int:
    """Forward and backward of `batch` sequences of `length` tokens, pairs j ≤ i alone: three times the forward.

    What a model needs, not what an implementation spends (recomputation, the square's upper half): the numerator of
    the model FLOPs utilisation (MFU; Chowdhery et al., 2022, appendix B). A side stream is one more row of the batch,
    in all but the head.
    """
    rows = batch + 1 if has_side_stream(config) else batch
    mixing = sum(layer.prefill_flops_causal for layer in layer_costs(config, rows, length))
    return 3 * (mixing + feed_forward_flops(config, rows * length) + head_flops(config, batch * length))


def state_bytes(config: ModelConfig, batch: int, length: int, itemsize: int = 4) -> int:
    """Bytes that decoding holds of `batch` sequences of `length` tokens, in all layers.

    A side stream's queries and keys are among them, once a layer that reads them, for however many sequences.
    """
    return sum(layer.state_bytes for layer in layer_costs(config, batch, length, itemsize))


def has_side_stream(config: ModelConfig) -> bool:
    """Whether a side stream goes through the blocks: not when the layout leaves no simple layer."""
    return mixers.find(config.variant).side_stream is not None and not all(
        is_standard(config.layout, config.num_hidden_layers)
    )
