"""Faults of whole models: logits, gradients, layouts, causality, and the numbers on record."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import Unsupported

import deconattn.costs
import deconattn.model
from deconattn import decoding
from deconattn.decoding import SideMemory
from deconattn.mixers import _contract, _scores
from deconattn.mixers._contract import RMSNorm
from deconattn.mixers._softmax import SoftmaxMixer
from deconattn.mixers.approximate import Approximate
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.mixers.softplus import Softplus
from deconattn.model import Block, Decoder, LanguageModel
from tests.mixers import test_causality, test_compiled, test_golden, test_models
from tests.mixers.breaking import (
    Patch,
    both,
    exchange,
    interleaved,
    leaking,
    mixed,
    of_source,
    spoilt_by_use,
    wrong_gradient,
)
from tests.mixers.faults.fault import BLIND, TILED, Fault, kind


def recorded(change: float) -> Patch:
    """Golden numbers that somebody wrote from a wrong model."""
    record = json.loads(test_golden.FILE.read_text())
    wrong = {variant: {name: x * change for name, x in numbers.items()} for variant, numbers in record.items()}
    return exchange(test_golden, "FILE", lambda file: SimpleNamespace(read_text=lambda: json.dumps(wrong)))


def other(**wanted: Any) -> dict[str, Any]:
    """The first of the pairwise cases that has these."""
    return {"case": next(case for case in test_models.OTHERS if wanted.items() <= case.items())}


double, single, half = torch.float64, torch.float32, torch.bfloat16
UNSCALED = both(
    exchange(_scores, "scores", lambda s: lambda q, k: s(q, k) * q.shape[-1] ** 0.5),
    mixed(SoftmaxMixer, lambda mix, q, k, v: mix(q * q.shape[-1] ** 0.5, k, v)),
)
ROTATED = exchange(_contract, "rotate", lambda _: interleaved)

FAULTS = [
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
    # Compiled.
    Fault("what is compiled mixes something else", mixed(NonApproximate, lambda mix, *x: (
              mix(*x) * (1 + 1e-6 * torch.compiler.is_compiling()))),
          test_compiled.test_a_compiled_model_is_one_graph_with_the_same_gradients, {"variant": "nonapproximate"},
          "relative RMS"),
    Fault("the graph breaks in a mixer", mixed(SoftmaxMixer, lambda mix, *x: (torch._dynamo.graph_break(), mix(*x))[1]),
          test_compiled.test_a_compiled_model_is_one_graph_with_the_same_gradients, {"variant": "standard"},
          "graph_break", Unsupported),
]  # fmt: skip
