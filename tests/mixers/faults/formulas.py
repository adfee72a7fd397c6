"""Faults of what a variant says that it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import deconattn.costs
from deconattn.mixers import _scores, approximate, mlp
from deconattn.mixers._contract import Mixer, QKVMixer
from deconattn.mixers._scores import ScoreMixer
from deconattn.mixers.mlp import MLP
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.mixers.softplus import Softplus
from tests.mixers import test_formulas
from tests.mixers.breaking import Patch, exchange
from tests.mixers.faults.fault import Fault, kind


def numbers(variant: str, kv_heads: int = 2, **more: Any) -> dict[str, Any]:
    return {"variant": variant, "kv_heads": kv_heads, **more}


def stating(mixer: type[Mixer], **wrong: int) -> Patch:
    """A mixer that says of its costs whatever somebody wrote down."""
    return exchange(mixer, "costs", lambda costs: staticmethod(lambda *a: replace(costs(*a), **wrong)))


single, half = torch.float32, torch.bfloat16

FAULTS = [
    Fault("biases are not counted", exchange(QKVMixer, "parameter_count", lambda count: staticmethod(
              lambda config: count(config) - config.hidden_size)),
          test_formulas.test_parameters_are_those_counted, kind("standard", head="bias"), "assert"),
    Fault("the inner width is two too large", exchange(mlp, "inner_width", lambda width: lambda config: width(config) + 2),
          test_formulas.test_parameters_are_those_counted, kind("mlp", head="norm"), "assert"),
    Fault("a multiply-add of a projection is one FLOP", exchange(QKVMixer, "projection_flops", lambda flops: staticmethod(
              lambda *a: flops(*a) // 2)),
          test_formulas.test_prefill_flops_are_those_counted, numbers("nonapproximate"), "assert"),
    Fault("blocks are counted as the square", exchange(_scores, "block_pairs", lambda _: lambda n, block: n * n),
          test_formulas.test_prefill_flops_are_those_counted, numbers("softplus"), "assert"),
    Fault("any number is stated for the square", stating(Softplus, prefill_flops_square=10**15),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("softplus"), "^square"),
    Fault("running sums are counted as pairs", exchange(NonApproximate, "costs", lambda costs: staticmethod(
              lambda c, b, n, size=4: replace(costs(c, b, n, size), prefill_flops_square=costs(
                  c, b, n).prefill_flops_square + 4 * b * n * n * c.hidden_size))),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("nonapproximate"), "^square"),
    Fault("one map for all is counted for each row", exchange(ScoreMixer, "projection_flops", lambda flops: (
              staticmethod(lambda c, qk, vo: flops(c, vo, vo)))),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("fixedseqqk"), "^square"),
    Fault("queries see more pairs than there are", exchange(_scores, "causal_pairs", lambda _: lambda n: n * n + 1),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("rndembqk"), "^causal"),
    Fault("queries do not see themselves", exchange(_scores, "causal_pairs", lambda _: lambda n: n * (n - 1) // 2),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("standard"), "^causal"),
    Fault("causal FLOPs are forgotten", stating(MLP, prefill_flops_causal=0),
          test_formulas.test_square_and_causal_flops_are_those_of_the_definition, numbers("mlp"), "^causal"),
    Fault("any number is stated for a step", stating(Softplus, decode_flops=1),
          test_formulas.test_decode_flops_are_those_counted, numbers("softplus"), "a step"),
    Fault("sums are counted without the keys' ones", exchange(approximate, "features", lambda f: lambda size: f(size) - 1),
          test_formulas.test_decode_flops_are_those_counted, numbers("approximate"), "a step"),
    Fault("any number is stated for activations", stating(Softplus, activation_bytes=7),
          test_formulas.test_activation_bytes_are_those_that_autograd_holds, numbers("softplus", head="bias"), "activations"),
    Fault("what softplus holds beside A is not counted", exchange(Softplus, "held_a_pair", lambda _: 4),
          test_formulas.test_activation_bytes_are_those_that_autograd_holds, numbers("softplus", head="bias"), "activations"),
    Fault("head norms hold nothing", exchange(QKVMixer, "head_norm_numbers", lambda _: staticmethod(lambda *a: 0)),
          test_formulas.test_activation_bytes_are_those_that_autograd_holds, numbers("standard", head="norm"), "activations"),
    Fault("the output is held for backward", exchange(Mixer, "__call__", lambda call: lambda self, *a: (
              call(self, *a).exp())),
          test_formulas.test_activation_bytes_are_those_that_autograd_holds, numbers("mlp", head="bias"), "reads the"),
    Fault("pages are not counted", exchange(_scores, "paged", lambda _: lambda n: n),
          test_formulas.test_bytes_of_states_are_those_held, kind("staticembqk", dtype=single), "tokens"),
    Fault("sums are held in bf16, not float32", exchange(NonApproximate, "costs", lambda costs: staticmethod(
              lambda c, b, n, size=4: replace(costs(c, b, n, size), state_bytes=costs(c, b, n).state_bytes * size // 4))),
          test_formulas.test_bytes_of_states_are_those_held, kind("nonapproximate", dtype=half), "tokens"),
    Fault("standard layers are counted as simple ones", exchange(deconattn.costs, "is_standard", lambda f: (
              lambda layout, n: f("uniform", n))),
          test_formulas.test_bytes_of_states_are_those_held, kind("nonapproximate", "even", dtype=single), "=="),
    Fault("a state is a part of a tensor that is kept whole", exchange(NonApproximate, "fill", lambda fill: (
              lambda self, state, *a: (fill(self, state, *a), state.tensors.update(
                  {name: torch.cat([x, x])[: len(x)] for name, x in state.tensors.items()}))[0])),
          test_formulas.test_bytes_of_states_are_those_held, kind("nonapproximate", dtype=single), "storages"),
]  # fmt: skip
