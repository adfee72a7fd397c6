"""Faults of one mixer: its map, its form, its precision, and other people's code for the same."""

from __future__ import annotations

import torch

from deconattn.mixers import _contract, _scores, _taylor, nonapproximate, softplus
from deconattn.mixers._contract import QKVMixer, RMSNorm
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers._softmax import SoftmaxMixer
from deconattn.mixers.approximate import Approximate
from deconattn.mixers.mlp import MLP
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.model import Decoder
from tests.mixers import test_maps, test_oracles, test_precision
from tests.mixers.breaking import (
    exchange,
    in_rows,
    leaking,
    mixed,
    plain_step,
    plain_sums,
    wrong_gradient,
)
from tests.mixers.cases import BF16, FLOAT32
from tests.mixers.faults.fault import TILED, Fault, kind, mixer

double, single, half = torch.float64, torch.float32, torch.bfloat16
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
    Fault("what later keys do to the mean is left out of ∂/∂u", exchange(nonapproximate, "add_later", lambda _: (
              lambda x, decay: x.zero_())),
          test_precision.test_nonapproximate_is_exact_at_scores_of_a_thousand, {"length": 127, "dtype": single},
          "gradient of u:"),
    Fault("a segment's sums are not carried to the next", mixed(NonApproximate, lambda mix, *x: torch.cat(
              [mix(*(t[:, :, :48] for t in x)), mix(*(t[:, :, 48:] for t in x))], dim=2)),
          test_precision.test_nonapproximate_carries_its_sums_from_segment_to_segment, {"dtype": double}, "output:"),
    Fault("∂/∂u knows its own segment alone", exchange(nonapproximate, "add_later", lambda add: lambda x, decay: (
              x[..., -1:].zero_(), add(x, decay))),
          test_precision.test_nonapproximate_carries_its_sums_from_segment_to_segment, {"dtype": single}, "u:"),
    Fault("∂/∂u has a little added where it is nothing", mixed(NonApproximate, wrong_gradient(1, 1e-5)),
          test_precision.test_nonapproximate_has_no_gradient_where_one_key_has_all_weight, {"length": 257, "budget": 5e-8},
          "gradient of u, seed 0:"),
    Fault("the running maximum is missing in decoding", exchange(NonApproximate, "mix_step", plain_step),
          test_precision.test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand,
          {"length": 33, "layout": "uniform"}, "relative RMS"),
    Fault("the running maximum is missing below float64", mixed(NonApproximate, lambda mix, q, k, v: (
              mix(q, k, v) if v.dtype == double else plain_sums(mix, q, k, v))),
          test_precision.test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand,
          {"length": 33, "layout": "even"}, "isfinite"),
    # Other people's code.
    Fault("scores are not scaled by √dh but by dh", mixed(Approximate, lambda mix, q, k, v: mix(q / 8**0.5, k, v)),
          test_oracles.test_approximate_is_the_reference_of_fla, {"length": 33}, "^ relative RMS"),
    Fault("a key's gradient goes missing", mixed(Approximate, lambda mix, q, k, v: mix(q, k.detach() + 0 * k, v)),
          test_oracles.test_approximate_is_the_reference_of_fla, {"length": 257}, "gradient of k:"),
    Fault("the kernel's score_mod is the softmax's", exchange(_taylor, "log_taylor", lambda _: lambda s, *a: s),
          test_oracles.test_approximate_is_flex_attention_with_its_score_mod, {}, "relative RMS"),
]  # fmt: skip
