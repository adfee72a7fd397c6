"""The decoding state as transformers' cache: what `generate` reorders, repeats, crops and hands back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from deconattn.decoding import DecodingState
from deconattn.mixers._states import State


class LayerState(CacheLayerMixin):
    """One layer's state among transformers' cache layers; the mixer extends it, not the cache."""

    supports_early_init = False

    def __init__(self, state: State, whole: DecodingState) -> None:
        super().__init__()
        self.state = state
        self.whole = whole
        self.is_initialized = True

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]
        """Whether tokens can be taken back."""
        return self.state.croppable

    def get_seq_length(self) -> int:
        """Columns seen so far, padding included."""
        return 0 if self.whole.seen is None else self.whole.seen.most + self.whole.padding

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys a mask would cover, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def reset(self) -> None:
        """Forget everything: the whole cache's affair."""
        self.whole.reset()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare: a mixer fills its state."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Not how this state grows."""
        raise NotImplementedError("a DeconAttnCache is extended by its model alone")


class DeconAttnCache(Cache):
    """What a DeconAttnForCausalLM keeps of the past: keys and values, values alone, or running sums, by layer.

    Made by the model (`model.new_cache()`, or by itself when `use_cache`); rows may be of unequal lengths.
    """

    def __init__(self, state: DecodingState) -> None:
        super().__init__(layers=[LayerState(layer, state) for layer in state.layers])
        self.state = state

    def nbytes(self) -> int:
        """Bytes held, the side stream's queries and keys among them (see `DecodingState.nbytes`)."""
        return self.state.nbytes()

    def reset(self) -> None:
        """Forget everything."""
        self.state.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was: beams that survive."""
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
            raise ValueError(f"crop takes the number of tokens to remove as a negative one, not {tokens_to_remove}")
        self.state.crop(-tokens_to_remove)
