"""Faults of one mixer: its map, its form, its precision, other people's code for the same."""

from __future__ import annotations

from typing import Any

import torch

from deconattn.decoder import Decoder
from deconattn.layers import RMSNorm
from deconattn.mixers import approximate, base, blocks, mlp, nonapproximate
from deconattn.mixers.approximate import Approximate
from deconattn.mixers.base import QKVMixer, ScoreMixer
from deconattn.mixers.blocks import BlockAttention
from deconattn.mixers.cache import KVCache
from deconattn.mixers.nonapproximate import NonApproximate, RunningMean
from deconattn.mixers.softplus import softplus_weights
from deconattn.mixers.standard import Standard
from tests.mixers import (
    test_maps,
    test_oracles,
    test_precision,
)
from tests.mixers.cases import BF16, FLOAT32, FLOAT64
from tests.mixers.faults import Fault, Faults, kind

double, single, half = torch.float64, torch.float32, torch.bfloat16


def alone(variant: str, heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "heads": heads, **more}


def form(variant: str, head_dim: int, length: int, dtype: torch.dtype) -> dict[str, Any]:
    return {"variant": variant, "head_dim": head_dim, "length": length, "dtype": dtype}


def long(variant: str, dtype: torch.dtype, budget: float) -> dict[str, Any]:
    return {"variant": variant, "dtype": dtype, "budget": budget}


# fmt: off
FAULTS: Faults = {
    # ---- one mixer ----
    test_maps.test_map_times_values_is_forward_is_step_by_step: [
        Fault("the map shows one key of the future", base.future, "triu(1)", "triu(2)", alone("standard", length=31),
              "after its query"),
        Fault("the normaliser of the Taylor weights is off by one", Approximate.weights, "/ w.sum(-1, keepdim=True)",
              "/ w.sum(-1, keepdim=True) * reach / (reach + 1)", alone("approximate", length=33), "rows of the map:"),
        Fault("one map too many for a side stream", QKVMixer.attention_map, "widened(q),",
              "widened(q).expand(3, -1, -1, -1),", alone("rndembqk", length=2), "Size"),
        Fault("the future leaks by one", Standard.mix, "return F", "return 1e-6 * v.roll(-1, 2) + F",
              alone("standard", length=127), "forward:"),
        Fault("heads of a group are tiled, not interleaved", QKVMixer.repeat, "x.repeat_interleave(group, dim=1)",
              "x.repeat(1, group, 1, 1)", alone("standard", "grouped", length=2), "forward:"),
        Fault("features of Taylor sums are made in float32", approximate.phi, "x = widened(x)", "x = x.float().double()",
              alone("approximate", length=33), "steps:"),
        Fault("a state forgets when it grows by a page", KVCache.append, "torch.cat([buffer,", "torch.cat([0 * buffer,",
              alone("softplus", length=127), "steps:"),
        Fault("a side stream's step takes the query before its own", ScoreMixer.mix_step, "q[:, :, positions[0]]",
              "q[:, :, positions[0] - 1]", alone("rndembqk", length=31), "steps:"),
    ],
    test_maps.test_long_texts: [
        Fault("a scan carries nothing where texts are long", nonapproximate.scan, "(kept, carried)",
              "(kept, carried * (length < 1024))", long("nonapproximate", double, FLOAT64), "output:"),
        Fault("queries of the last block give keys no gradient", BlockAttention.backward, "grad_k[:, :end] += of_s",
              "grad_k[:, :end] += (end <= 1024) * of_s", long("approximate", double, FLOAT64), "gradient:"),
        Fault("values are rounded to eight bits", NonApproximate.mix, "self.repeat(v))",
              "self.repeat(v.to(torch.float8_e5m2).to(v.dtype)))", long("nonapproximate", half, 3 * BF16), "relative RMS"),
    ],
    test_maps.test_a_models_maps_and_raw_scores: [
        Fault("raw scores are not scaled", ScoreMixer.raw_scores, "return scores", "return 2 * scores", kind("softplus"),
              "relative RMS"),
        Fault("a standard layer's maps are those of the side stream's row", Decoder.attention_maps,
              "attention[-input_ids.shape[0] :]", "attention[: input_ids.shape[0]]", kind("fixedseqqk", "even"),
              "relative RMS"),
        Fault("a mixer that mixes nothing shows a map", mlp.MLP.attention_map, "return None", "return source",
              kind("mlp"), "is None"),
    ],
    # ---- precision ----
    test_precision.test_the_form_keeps_its_budget: [
        Fault("softplus is the identity from 20 on", softplus_weights, "threshold=BEND", "threshold=20.0",
              form("softplus", 4, 257, double), "output:"),
        Fault("queries are rounded to bf16", ScoreMixer._rows, "scores(q, k)", "scores(q.bfloat16().to(q.dtype), k)",
              form("softplus", 16, 33, single), "output:"),
        Fault("values are rounded to eight bits", NonApproximate.mix, "self.repeat(v))",
              "self.repeat(v.to(torch.float8_e4m3fn).to(v.dtype)))", form("nonapproximate", 4, 257, half), "output:"),
        Fault("a query's gradient has something added", RunningMean.backward, "* of_u).to(q", "* of_u + 1e-2 * q).to(q",
              form("nonapproximate", 64, 33, half), "gradient of q:"),
    ],
    test_precision.test_a_whole_model_in_float32_and_in_mixed_precision: [
        Fault("norms are taken in eight bits", RMSNorm.forward, "rms_norm(widened(x)",
              "rms_norm(x.to(torch.float8_e5m2).float()", kind("standard", dtype=half, budget=3 * BF16), "logits:"),
        Fault("a query's gradient has something added", RunningMean.backward, "* of_u).to(q", "* of_u + 1e-3 * q).to(q",
              kind("nonapproximate", dtype=single, budget=FLOAT32), "gradient:"),
    ],
    test_precision.test_nonapproximate_is_exact_at_scores_of_a_thousand: [
        Fault("the running maximum is missing", nonapproximate.running_sums, "u.cummax(-1).values", "0 * u",
              {"length": 257, "dtype": single}, "output: relative RMS nan"),
        Fault("∂/∂u has something added", RunningMean.backward, "(silu * of_u)", "(silu * of_u + 1e-9)",
              {"length": 257, "dtype": double}, "gradient of u:"),
        Fault("∂/∂v has something added", RunningMean.backward, "of_v.to(", "(of_v + 1e-5).to(",
              {"length": 31, "dtype": single}, "gradient of v:"),
        Fault("what later keys do to the mean is left out of ∂/∂u", RunningMean.backward, "rest * c - later", "rest * c",
              {"length": 127, "dtype": single}, "gradient of u:"),
    ],
    test_precision.test_nonapproximate_has_no_gradient_where_one_key_has_all_weight: [
        Fault("∂/∂u has a little added where it is nothing", RunningMean.backward, "(silu * of_u)",
              "(silu * of_u + 1e-5)", {"length": 257, "budget": 5e-8}, "gradient of u, seed 0:"),
    ],
    test_precision.test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand: [
        Fault("the running maximum is missing in decoding", NonApproximate.mix_step, "torch.maximum(before, u)", "before",
              {"length": 33, "layout": "uniform"}, "relative RMS"),
        Fault("the running maximum is missing below float64", nonapproximate.running_sums, "u.cummax(-1).values",
              "u.cummax(-1).values * (u.dtype == torch.float64)", {"length": 33, "layout": "even"}, "isfinite"),
    ],
    # ---- other people's code ----
    test_oracles.test_approximate_is_the_reference_of_fla: [
        Fault("scores are not scaled by √dh but by dh", blocks.block_scores, "alpha=q.shape[-1] ** -0.5",
              "alpha=1 / q.shape[-1]", {"length": 33}, "^ relative RMS"),
        Fault("a key's gradient goes missing", BlockAttention.backward, "grad_k.to(k", "(0 * grad_k).to(k",
              {"length": 257}, "gradient of k:"),
    ],
    test_oracles.test_approximate_is_flex_attention_with_its_score_mod: [
        Fault("the kernel's score_mod is the softmax's", approximate.log_taylor, "torch.log(taylor_weights(s))", "s", {},
              "relative RMS"),
    ],
}
# fmt: on
