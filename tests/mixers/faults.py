"""Deliberate faults, each beside the test of the suite that catches it, and the words in which it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import deconattn.costs
import deconattn.model
from deconattn import DeconAttnConfig, DeconAttnForCausalLM, decoding, huggingface
from deconattn.decoding import DecodingState, SideMemory
from deconattn.mixers import _contract, _scores, _taylor, mlp, softplus
from deconattn.mixers._contract import QKVMixer, RMSNorm
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers._softmax import SoftmaxMixer
from deconattn.mixers._states import Rows, Seen, State
from deconattn.mixers.approximate import Approximate
from deconattn.mixers.mlp import MLP
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.mixers.softplus import Softplus
from deconattn.model import Block, Decoder, LanguageModel
from tests.mixers import (
    test_causality,
    test_decoding,
    test_formulas,
    test_golden,
    test_maps,
    test_models,
    test_oracles,
    test_precision,
    test_transformers,
)
from tests.mixers.breaking import (
    Patch,
    both,
    chosen,
    exchange,
    in_rows,
    interleaved,
    leaking,
    mixed,
    of_source,
    plain_step,
    plain_sums,
    spoilt_by_use,
    unordered,
    without,
    wrong_gradient,
)
from tests.mixers.cases import BF16, FLOAT32


@dataclass(frozen=True)
class Fault:
    """`what` is wrong, the `patch` that makes it so, the `test` that fails with `case`, and a pattern of what it then says."""

    what: str
    patch: Patch
    test: Callable[..., None]
    case: dict[str, Any]
    says: str


def recorded(change: float) -> Patch:
    """Golden numbers that somebody wrote from a wrong model."""
    record = json.loads(test_golden.FILE.read_text())
    wrong = {variant: {name: x * change for name, x in numbers.items()} for variant, numbers in record.items()}
    return exchange(test_golden, "FILE", lambda file: SimpleNamespace(read_text=lambda: json.dumps(wrong)))


def kind(variant: str, layout: str = "uniform", heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "layout": layout, "heads": heads, **more}


def mixer(variant: str, heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "heads": heads, **more}


def other(**wanted: Any) -> dict[str, Any]:
    """The first of the pairwise cases that has these."""
    return {"case": next(case for case in test_models.OTHERS if wanted.items() <= case.items())}


double, single, half = torch.float64, torch.float32, torch.bfloat16
BLIND = exchange(decoding, "_fingerprint", lambda _: lambda module: ("always",))
UNSCALED = both(
    exchange(_scores, "scores", lambda s: lambda q, k: s(q, k) * q.shape[-1] ** 0.5),
    mixed(SoftmaxMixer, lambda mix, q, k, v: mix(q * q.shape[-1] ** 0.5, k, v)),
)
ROTATED = exchange(_contract, "rotate", lambda _: interleaved)
TILED = exchange(QKVMixer, "repeat", lambda _: lambda self, x: x.repeat(
    1, self.config.num_attention_heads // self.config.kv_heads, 1, 1))  # fmt: skip
PADDING_COUNTED = exchange(huggingface, "_text_first", lambda _: lambda *a: None)
UNORDERED = exchange(State, "select", unordered)
MASKED_LATE = exchange(_scores, "future", lambda f: lambda *a: f(*a).triu(2))

FAULTS = [
    # One mixer.
    Fault("the map shows one key of the future", MASKED_LATE,
          test_maps.test_rows_sum_to_one_and_see_no_future, mixer("standard", length=31), "after its query"),
    Fault("the normaliser of the Taylor weights is off by one",
          exchange(Approximate, "weights", lambda w: lambda self, s, h, r: w(self, s, h, r) * (r / (r + 1))),
          test_maps.test_rows_sum_to_one_and_see_no_future, mixer("approximate", length=33), "relative RMS"),
    Fault("one map too many for a side stream",
          exchange(QKVMixer, "attention_map", lambda a: lambda self, source: a(self, source).expand(3, -1, -1, -1)),
          test_maps.test_rows_sum_to_one_and_see_no_future, mixer("rndembqk", length=2), "Size"),
    Fault("the future leaks by one", mixed(SoftmaxMixer, leaking(1, 1e-6)),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("standard", length=127), "forward:"),
    Fault("1/√dh is missing in the fast form", mixed(Approximate, lambda mix, q, k, v: mix(q * 2, k, v)),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("approximate", length=31), "forward:"),
    Fault("heads of a group are tiled, not interleaved", TILED,
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("standard", "grouped", length=2), "forward:"),
    Fault("features of Taylor sums are made in float32",
          exchange(_taylor, "phi", lambda phi: lambda x: phi(x.float()).double()),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("approximate", length=33), "steps:"),
    Fault("a step weighs the past by the wrong maximum", exchange(NonApproximate, "mix_step", plain_step),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("nonapproximate", length=33), "steps:"),
    Fault("a state forgets when it grows by a page", in_rows(torch.zeros_like),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("softplus", length=127), "steps:"),
    Fault("a side stream's step takes the query before its own",
          exchange(ScoreMixer, "past", lambda past: lambda self, q, *a: past(self, q.roll(1, 2), *a)),
          test_maps.test_map_times_values_is_forward_is_step_by_step, mixer("rndembqk", length=31), "steps:"),
    Fault("a scan loses what lies more than 1,024 positions back",
          mixed(NonApproximate, lambda mix, *x: torch.cat(
              [mix(*(t[:, :, :1024] for t in x)), *([mix(*(t[:, :, 1024:] for t in x))] if x[0].shape[2] > 1024 else [])],
              dim=2)),
          test_maps.test_long_texts, {"variant": "nonapproximate"}, "^ relative RMS"),
    Fault("keys of the last block have no gradient",
          mixed(Approximate, lambda mix, q, k, v: mix(q, torch.cat([k[:, :, :1024], k[:, :, 1024:].detach()], 2), v)),
          test_maps.test_long_texts, {"variant": "approximate"}, "k_proj.weight relative RMS"),
    Fault("raw scores are not scaled",
          exchange(ScoreMixer, "raw_scores", lambda raw: lambda self, x: 2 * raw(self, x)),
          test_maps.test_a_models_maps_and_raw_scores, kind("softplus"), "relative RMS"),
    Fault("a standard layer's maps are those of the side stream's row",
          exchange(Decoder, "attention_maps", lambda maps: lambda self, ids: [m.flip(0) for m in maps(self, ids)]),
          test_maps.test_a_models_maps_and_raw_scores, kind("fixedseqqk", "even"), "relative RMS"),
    Fault("a mixer that mixes nothing shows a map", exchange(MLP, "attention_map", lambda _: lambda self, x: torch.eye(33)),
          test_maps.test_a_models_maps_and_raw_scores, kind("mlp"), "is None"),
    # Whole models.
    Fault("1/√dh is missing everywhere", UNSCALED, test_models.test_logits, kind("staticembqk", length=31), "at inference:"),
    Fault("RoPE turns neighbours, not halves", ROTATED, test_models.test_logits, kind("rndembqk", length=33), "at inference:"),
    Fault("heads of a group are tiled, not interleaved, before and after", TILED,
          test_models.test_logits, kind("nonapproximate", heads="grouped", length=2), "at inference:"),
    Fault("embeddings are not normalised before queries and keys are read from them",
          of_source(lambda block, x, e, source: e if block.self_attn.qk_source == "embeddings" else source),
          test_models.test_logits, kind("staticembqk", "even", length=31), "at inference:"),
    Fault("what is kept of a side stream is spoilt by its use", exchange(SideMemory, "of", spoilt_by_use),
          test_models.test_logits, kind("rndembqk", length=31), "at inference, again:"),
    Fault("the side stream of training is the last sequence",
          of_source(lambda block, x, e, source: block.input_layernorm(x[-1:]) if len(source) == 1 else source),
          test_models.test_logits, kind("fixedseqqk", length=31), "in training:"),
    Fault("the scale of softplus grows from 0, not 1",
          exchange(Softplus, "weights", lambda w: lambda self, s, h, r: w(self, s, h, (r - 1).clamp(min=1))),
          test_models.test_logits, kind("softplus", "even", length=33), "at inference:"),
    Fault("the gradient of u is dropped",
          mixed(NonApproximate, lambda mix, q, k, v: mix(q.detach(), k.detach(), v)),
          test_models.test_gradients_of_every_parameter, kind("nonapproximate", length=31), "relative RMS"),
    Fault("training does not reach the side stream", of_source(lambda block, x, e, source: (
              source.detach() if len(source) == 1 else source)),
          test_models.test_gradients_of_every_parameter, kind("rndembqk", length=127), "relative RMS"),
    Fault("a value has a gradient that is not its own", mixed(SoftmaxMixer, wrong_gradient(2, 1e-6)),
          test_models.test_gradients_of_every_parameter, kind("standard", length=33), "relative RMS"),
    Fault("odd is even", exchange(deconattn.model, "is_standard", lambda f: lambda layout, n: f(
              {"odd": "even"}.get(layout, layout), n)),
          test_models.test_every_layout_with_head_norms_biases_and_tied_embeddings, other(layout="odd", variant="softplus"),
          "at inference:"),
    Fault("a head norm without its weight", exchange(RMSNorm, "forward", lambda f: lambda self, x: (
              f(self, x) / self.weight if len(self.weight) == 4 else f(self, x))),
          test_models.test_every_layout_with_head_norms_biases_and_tied_embeddings, other(head="both", variant="rndembqk"),
          "at inference:"),
    Fault("a skipped mixer takes its feed-forward along", exchange(Block, "forward", lambda f: (
              lambda self, x, e, skip, *a: f(self, x, e, skip and "skip", *a))),
          test_models.test_skips, kind("approximate", "even", mode="skip_mixer"), "at inference:"),
    Fault("a skip leaves the feed-forward", exchange(Block, "forward", lambda f: (
              lambda self, x, e, skip, *a: f(self, x, e, skip and "skip_mixer", *a))),
          test_models.test_skips, kind("mlp", "even", mode="skip"), "at inference:"),
    Fault("the side stream is not made again", BLIND,
          test_models.test_new_weights_leave_nothing_of_the_old_behind, kind("rndembqk", "even"), "after loading:"),
    Fault("an update in place is not seen", exchange(decoding, "_fingerprint", lambda _: lambda module: (
              [p.data_ptr() for p in module.parameters()], [b._version for b in module.buffers()])),
          test_models.test_new_weights_leave_nothing_of_the_old_behind, kind("rndembqk", "even"), "after an update"),
    Fault("new tensors are not seen", exchange(decoding, "_fingerprint", lambda _: lambda module: (
              [p._version for p in module.parameters()],)),
          test_models.test_new_weights_leave_nothing_of_the_old_behind, kind("fixedseqqk", "uniform", "grouped"), "after new"),
    Fault("an update that raises no version is not seen", exchange(decoding, "_sample", lambda _: lambda tensors: []),
          test_models.test_new_weights_leave_nothing_of_the_old_behind, kind("rndembqk", "even"), "no version"),
    Fault("ε stands outside the root", exchange(RMSNorm, "forward", lambda _: lambda self, x: (
              x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps) * self.weight)),
          test_models.test_standard_is_the_transformers_model, {"kv_heads": 2, "qk_norm": True}, "relative RMS"),
    # Causality.
    Fault("the future leaks by one, a little", mixed(Approximate, leaking(1, 1e-9)),
          test_causality.test_causal_by_gradient, kind("approximate", "even"), "sees the text beyond"),
    Fault("the side stream is one position ahead", of_source(lambda block, x, e, source: (
              source.roll(-1, 1) if len(source) == 1 else source)),
          test_causality.test_causal_by_gradient, kind("rndembqk"), "sees the side stream beyond"),
    Fault("positions see what precedes them alone",
          exchange(Decoder, "embed", lambda embed: lambda self, ids, skip=None: (
              nn.functional.pad(embed(self, ids, skip), (0, 0, 1, 0))[:, :-1])),
          test_causality.test_causal_by_gradient, kind("mlp"), "position 0 does not see itself"),
    Fault("the future leaks in a running mean", mixed(NonApproximate, leaking(1, 1e-3)),
          test_causality.test_another_future_leaves_the_past_as_it_is_to_the_bit,
          kind("nonapproximate", length=33, dtype=half), "know what follows"),
    Fault("the first position sees the last", mixed(SoftmaxMixer, leaking(30, 1e-12)),
          test_causality.test_another_future_leaves_the_past_as_it_is_to_the_bit,
          kind("standard", length=31, dtype=double), "know what follows"),
    Fault("positions do not see themselves", exchange(nn.Embedding, "forward", lambda f: lambda self, ids: (
              nn.functional.pad(f(self, ids), (0, 0, 1, 0))[:, :-1] if ids.dim() == 2 else f(self, ids))),
          test_causality.test_another_future_leaves_the_past_as_it_is_to_the_bit,
          kind("softplus", length=31, dtype=single), "does not know itself"),
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
    # Precision.
    Fault("softplus is the identity from 20 on", exchange(softplus, "BEND", lambda _: 20.0),
          test_precision.test_the_form_keeps_its_budget,
          {"variant": "softplus", "head_dim": 4, "length": 257, "dtype": double}, "output:"),
    Fault("queries are rounded to bf16", exchange(ScoreMixer, "_block", lambda block: (
              lambda self, q, k, v, start: block(self, q.bfloat16().to(q.dtype), k, v, start))),
          test_precision.test_the_form_keeps_its_budget,
          {"variant": "softplus", "head_dim": 16, "length": 33, "dtype": single}, "output:"),
    Fault("values are rounded to eight bits", mixed(NonApproximate, lambda mix, q, k, v: (
              mix(q, k, v.to(torch.float8_e4m3fn).to(v.dtype)))),
          test_precision.test_the_form_keeps_its_budget,
          {"variant": "nonapproximate", "head_dim": 4, "length": 257, "dtype": half}, "output:"),
    Fault("a query has a gradient that is not its own", mixed(NonApproximate, wrong_gradient(0, 1e-2)),
          test_precision.test_the_form_keeps_its_budget,
          {"variant": "nonapproximate", "head_dim": 64, "length": 33, "dtype": half}, "gradient of q:"),
    Fault("positions are rounded to bf16", exchange(_contract, "rotary_tables", lambda tables: (
              lambda *a: tuple(t.bfloat16().to(t.dtype) for t in tables(*a)))),
          test_precision.test_the_mixer_keeps_its_budget,
          mixer("standard", length=257, dtype=single, autocast=False), "output:"),
    Fault("a bias has another gradient", exchange(QKVMixer, "forward", lambda f: lambda self, *a: (
              f(self, *a) + (self.v_proj.bias.sum() - self.v_proj.bias.sum().detach()))),
          test_precision.test_the_mixer_keeps_its_budget,
          mixer("approximate", "grouped", length=257, dtype=half, autocast=True), "gradient:"),
    Fault("norms are taken in eight bits", exchange(RMSNorm, "forward", lambda f: lambda self, x: f(
              self, x.to(torch.float8_e5m2).to(x.dtype))),
          test_precision.test_a_whole_model_in_float32_and_in_mixed_precision,
          kind("standard", dtype=half, budget=3 * BF16), "logits:"),
    Fault("a running mean's query has a gradient that is not its own", mixed(NonApproximate, wrong_gradient(0, 1e-3)),
          test_precision.test_a_whole_model_in_float32_and_in_mixed_precision,
          kind("nonapproximate", dtype=single, budget=FLOAT32), "gradient:"),
    Fault("the running maximum is missing", mixed(NonApproximate, plain_sums),
          test_precision.test_nonapproximate_is_exact_at_scores_of_a_thousand, {"length": 257, "dtype": single},
          "output: relative RMS nan"),
    Fault("∂/∂u has something added", mixed(NonApproximate, wrong_gradient(1, 1e-9)),
          test_precision.test_nonapproximate_is_exact_at_scores_of_a_thousand, {"length": 257, "dtype": double},
          "gradient of u:"),
    Fault("∂/∂v has something added", mixed(NonApproximate, wrong_gradient(2, 1e-5)),
          test_precision.test_nonapproximate_is_exact_at_scores_of_a_thousand, {"length": 31, "dtype": single},
          "gradient of v:"),
    Fault("the running maximum is missing in decoding", exchange(NonApproximate, "mix_step", plain_step),
          test_precision.test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand,
          {"length": 33, "layout": "uniform"}, "relative RMS"),
    Fault("the running maximum is missing below float64", mixed(NonApproximate, lambda mix, q, k, v: (
              mix(q, k, v) if v.dtype == double else plain_sums(mix, q, k, v))),
          test_precision.test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand,
          {"length": 33, "layout": "even"}, "isfinite"),
    # Formulas.
    Fault("biases are not counted", exchange(QKVMixer, "parameter_count", lambda count: staticmethod(
              lambda config: count(config) - config.hidden_size)),
          test_formulas.test_parameters_are_those_counted, kind("standard", head="bias"), "assert"),
    Fault("the inner width is two too large", exchange(mlp, "inner_width", lambda width: lambda config: width(config) + 2),
          test_formulas.test_parameters_are_those_counted, kind("mlp", head="norm"), "assert"),
    Fault("a multiply-add of a projection is one FLOP", exchange(QKVMixer, "projection_flops", lambda flops: staticmethod(
              lambda *a: flops(*a) // 2)),
          test_formulas.test_flops_are_those_counted, mixer("nonapproximate", length=33), "prefill_flops"),
    Fault("queries see more pairs than there are", exchange(_scores, "causal_pairs", lambda _: lambda n: n * n + 1),
          test_formulas.test_flops_are_those_counted, mixer("rndembqk", length=31), "prefill_flops_causal"),
    Fault("pages are not counted", exchange(_scores, "paged", lambda _: lambda n: n),
          test_formulas.test_bytes_of_states_are_those_held, kind("staticembqk", dtype=single), "tokens"),
    Fault("sums are held in bf16, not float32", exchange(NonApproximate, "costs", lambda costs: staticmethod(
              lambda c, b, n, size=4: replace(costs(c, b, n, size), state_bytes=costs(c, b, n).state_bytes * size // 4))),
          test_formulas.test_bytes_of_states_are_those_held, kind("nonapproximate", dtype=half), "tokens"),
    Fault("standard layers are counted as simple ones", exchange(deconattn.costs, "is_standard", lambda f: (
              lambda layout, n: f("uniform", n))),
          test_formulas.test_bytes_of_states_are_those_held, kind("nonapproximate", "even", dtype=single), "=="),
    # Other people's code.
    Fault("scores are not scaled by √dh but by dh", mixed(Approximate, lambda mix, q, k, v: mix(q / 8**0.5, k, v)),
          test_oracles.test_approximate_is_the_reference_of_fla, {"length": 33}, "^ relative RMS"),
    Fault("a key's gradient goes missing", mixed(Approximate, lambda mix, q, k, v: mix(q, k.detach() + 0 * k, v)),
          test_oracles.test_approximate_is_the_reference_of_fla, {"length": 257}, "gradient of k:"),
    Fault("the kernel's score_mod is the softmax's", exchange(_taylor, "log_taylor", lambda _: lambda s, *a: s),
          test_oracles.test_approximate_is_flex_attention_with_its_score_mod, {}, "relative RMS"),
    # Golden numbers.
    Fault("a weight is drawn otherwise", exchange(test_golden, "initialise", lambda f: lambda model, seed: f(model, seed + 1)),
          test_golden.test_a_train_step_gives_the_numbers_on_record, {"variant": "mlp"}, r"loss +\| "),
    Fault("the loss counts one target twice", exchange(LanguageModel, "loss", lambda f: lambda self, ids: f(
              self, ids) * (1 + 1 / ids.numel())),
          test_golden.test_a_train_step_gives_the_numbers_on_record, {"variant": "rndembqk"}, r"gradient_norm +\| "),
    Fault("an update is a hundredth too large", exchange(test_golden, "make_optimizer", lambda f: lambda model, training: f(
              model, {**training, "peak_learning_rate": training["peak_learning_rate"] * 1.01})),
          test_golden.test_a_train_step_gives_the_numbers_on_record, {"variant": "standard"}, r"loss_after +\| "),
    Fault("a wrong number is put on record", recorded(1 + 1e-4),
          test_golden.test_the_numbers_on_record_are_the_references, {"variant": "approximate"}, r"loss +\| "),
]  # fmt: skip
