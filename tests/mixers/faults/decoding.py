"""Faults of decoding, and generation by transformers."""

from __future__ import annotations

from dataclasses import replace

import torch

from deconattn import DeconAttnConfig, DeconAttnForCausalLM, huggingface
from deconattn.decoding import DecodingState
from deconattn.mixers import _taylor
from deconattn.mixers._contract import QKVMixer
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers._softmax import SoftmaxMixer
from deconattn.mixers._states import Rows, Seen, State
from deconattn.mixers.nonapproximate import NonApproximate
from tests.mixers import test_decoding, test_transformers
from tests.mixers.breaking import (
    chosen,
    exchange,
    unordered,
    without,
)
from tests.mixers.faults.fault import BLIND, Fault, kind

PADDING_COUNTED = exchange(huggingface, "_text_first", lambda _: lambda *a: None)
UNORDERED = exchange(State, "select", unordered)

FAULTS = [
    # Decoding.
    Fault("a prefill that fills a state mixes values of one position earlier", exchange(QKVMixer, "forward", lambda f: (
              lambda self, h, s, state=None, lengths=None: f(self, h if state is None else h.roll(1, 1), s, state, lengths))),
          test_decoding.test_prefill_and_decode_are_one_forward, kind("standard", length=33), "prefill:"),
    Fault("positions stand still in decoding", exchange(Seen, "after", lambda after: lambda self, count=1: (
              replace(after(self, count), rows=self.rows, equal=False))),
          test_decoding.test_prefill_and_decode_are_one_forward, kind("staticembqk", length=31), "decode:"),
    Fault("Taylor sums leave out the last key", exchange(_taylor.TaylorState, "sum_up", lambda f: (
              lambda self, lengths: f(self, lengths - 1))),
          test_decoding.test_prefill_and_decode_are_one_forward, kind("approximate", length=257), "decode:"),
    Fault("a prefill's state is one value short", exchange(Rows, "fill", lambda fill: lambda self, **v: fill(
              self, **{n: torch.cat([x[:, :, :-1], 0 * x[:, :, -1:]], 2) for n, x in v.items()})),
          test_decoding.test_prefill_and_decode_are_one_forward, kind("rndembqk", "even", length=127), "decode:"),
    Fault("a state takes padding in", exchange(NonApproximate, "fill", lambda fill: (
              lambda self, state, q, k, v, lengths: fill(self, state, q, k, v, None))),
          test_decoding.test_rows_of_unequal_length_repeated_and_in_another_order,
          kind("nonapproximate", lengths=(5, 1, 9)), "row 0:"),
    Fault("Taylor sums take padding in", exchange(_taylor.TaylorState, "sum_up", lambda f: (
              lambda self, lengths: f(self, torch.full_like(lengths, lengths.max())))),
          test_decoding.test_rows_of_unequal_length_repeated_and_in_another_order,
          kind("approximate", lengths=(40, 3, 22)), "row 1:"),
    Fault("states stay in their order", UNORDERED,
          test_decoding.test_rows_of_unequal_length_repeated_and_in_another_order,
          kind("standard", "uniform", "grouped", lengths=(5, 1, 9)), "once row"),
    Fault("lengths stay in their order", exchange(Seen, "select", lambda select: (
              lambda self, index: select(self, chosen(index, len(self.rows))))),
          test_decoding.test_rows_of_unequal_length_repeated_and_in_another_order,
          kind("fixedseqqk", lengths=(40, 3, 22)), "once row"),
    Fault("a new state reads the old side stream", BLIND,
          test_decoding.test_a_new_state_after_new_weights_knows_nothing_of_the_old, kind("rndembqk", "even"), "relative RMS"),
    Fault("tokens taken back stay", exchange(DecodingState, "crop", lambda crop: lambda self, count: None),
          test_decoding.test_tokens_taken_back_are_forgotten, kind("standard"), "relative RMS"),
    Fault("tokens are taken back from sums", exchange(State, "croppable", lambda _: True),
          test_decoding.test_tokens_taken_back_are_forgotten, kind("nonapproximate", "uniform", "grouped"), "relative RMS"),
    # transformers.
    Fault("a checkpoint lacks the random side stream", without("side_embeddings"),
          test_transformers.test_saved_and_found_by_auto_model_it_is_the_same, kind("rndembqk"), "side_embeddings"),
    Fault("a checkpoint lacks the text of the side stream", without("side_input_ids"),
          test_transformers.test_saved_and_found_by_auto_model_it_is_the_same, kind("fixedseqqk", "even"), "side_input_ids"),
    Fault("the variant is lost", exchange(DeconAttnConfig, "shape", lambda shape: (
              lambda self: replace(shape(self), variant="standard"))),
          test_transformers.test_saved_and_found_by_auto_model_it_is_the_same, kind("softplus"), "equal"),
    Fault("padding on the left is counted", PADDING_COUNTED,
          test_transformers.test_the_same_log_likelihoods_alone_batched_and_padded,
          kind("standard", lengths=(30, 17, 2)), "padded on the left:"),
    Fault("padding on the right is taken for text", exchange(huggingface, "_text_first", lambda f: (
              lambda mask, ids, seen: torch.argsort(mask, dim=1, stable=True) if mask is not None and mask[:, 0].all() else f(
                  mask, ids, seen))),
          test_transformers.test_the_same_log_likelihoods_alone_batched_and_padded,
          kind("mlp", "even", lengths=(30, 17, 2)), "padded on the right:"),
    Fault("rows that share a map are folded back in the wrong order",
          exchange(SoftmaxMixer, "mix", lambda mix: lambda self, q, k, v: (
              mix(self, q, k, v).flip(0) if len(q) == 1 else mix(self, q, k, v))),
          test_transformers.test_the_same_log_likelihoods_alone_batched_and_padded,
          kind("rndembqk", lengths=(130, 65, 33)), "batched:"),
    Fault("states are not reordered under beams", UNORDERED,
          test_transformers.test_generation_with_a_cache_is_generation_without, kind("standard", mode="beams"), "equal"),
    Fault("running sums are not reordered under beams", UNORDERED,
          test_transformers.test_generation_with_a_cache_is_generation_without,
          kind("nonapproximate", "uniform", "grouped", mode="sampled beams"), "equal"),
    Fault("a step reads the query before its own", exchange(ScoreMixer, "past", lambda past: (
              lambda self, q, *a: past(self, q.roll(1, 2), *a))),
          test_transformers.test_generation_with_a_cache_is_generation_without,
          kind("fixedseqqk", "even", mode="sampling"), "equal"),
    Fault("generation leaves its cache alone", exchange(DeconAttnForCausalLM, "generate", lambda f: lambda *a, **b: f(
              *a, **b, use_cache=False)),
          test_transformers.test_generation_with_a_cache_is_generation_without, kind("mlp", "even", mode="greedy"), "None"),
    Fault("a step is slightly off", exchange(SoftmaxMixer, "mix_step", lambda f: lambda *a: f(*a) * (1 + 1e-9)),
          test_transformers.test_generation_with_a_cache_is_generation_without,
          kind("staticembqk", "even", mode="greedy"), "relative RMS"),
    Fault("generation counts padding", PADDING_COUNTED,
          test_transformers.test_generation_continues_each_row_as_it_would_alone, kind("nonapproximate", "even"), "=="),
]  # fmt: skip
