"""Faults of whole models: logits, gradients, layouts, causality, the numbers on record."""

from __future__ import annotations

from typing import Any

import torch

from deconattn import decoder, layers, layouts, side_stream
from deconattn.decoder import Block, Decoder, LanguageModel
from deconattn.layers import RMSNorm
from deconattn.mixers.approximate import Approximate
from deconattn.mixers.nonapproximate import NonApproximate
from deconattn.mixers.softplus import softplus_weights
from deconattn.mixers.standard import Standard
from deconattn.training import optimizer
from tests.mixers import (
    test_causality,
    test_golden,
    test_models,
)
from tests.mixers.faults import Fault, Faults, kind
from tests.reference import naive

double, single, half = torch.float64, torch.float32, torch.bfloat16


def other(**wanted: Any) -> dict[str, Any]:
    """The first of the pairwise cases that has these."""
    return {"case": next(case for case in test_models.OTHERS if wanted.items() <= case.items())}


# fmt: off
FAULTS: Faults = {
    # ---- whole models ----
    test_models.test_logits: [
        Fault("1/√dh is missing", Standard.mix, "(q, k, v", "(2 * q, k, v", kind("staticembqk", length=31),
              "at inference:"),
        Fault("RoPE turns neighbours, not halves", layers.rotate, "x32.roll(x.shape[-1] // 2, dims=-1)",
              "x32.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)", kind("rndembqk", length=33), "at inference:"),
        Fault("embeddings are not normalised before queries and keys are read from them", Block.mixer_inputs,
              "self.input_layernorm(embeddings)", "embeddings", kind("staticembqk", "even", length=31), "at inference:"),
        Fault("what is kept of a side stream is spoilt by its use", side_stream.SideMemory.of, "    return [pair",
              "    else:\n        self._layers = [pair and pair[::-1] for pair in self._layers]\n    return [pair",
              kind("rndembqk", length=31), "at inference, again:"),
        Fault("the side stream of training is the last sequence", Block.mixer_inputs, "hidden[:1]", "hidden[-1:]",
              kind("fixedseqqk", length=31), "in training:"),
        Fault("the scale of softplus grows from 0, not 1", softplus_weights, "reach.to(cosines.dtype)",
              "(reach - 1).clamp(min=1).to(cosines.dtype)", kind("softplus", "even", length=33), "at inference:"),
        Fault("ε stands outside the root", RMSNorm.forward,
              "F.rms_norm(widened(x), self.weight.shape, widened(self.weight), self.eps)",
              "(x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps) * self.weight)", kind("standard", length=33),
              "at inference:"),
    ],
    test_models.test_gradients_of_every_parameter: [
        Fault("the gradient of u is dropped", NonApproximate.mix, "(q, self.repeat(k)",
              "(q.detach(), self.repeat(k.detach())", kind("nonapproximate", length=31), "relative RMS"),
        Fault("training does not reach the side stream", Block.mixer_inputs, "hidden[:1]", "hidden[:1].detach()",
              kind("rndembqk", length=127), "relative RMS"),
        Fault("a value has a gradient that is not its own", Standard.mix, "return F",
              "return 1e-6 * (v - v.detach()) + F", kind("standard", length=33), "relative RMS"),
    ],
    test_models.test_every_layout_with_head_norms_biases_and_tied_embeddings: [
        Fault("odd is even", layouts.standard_layers, "layout.partition", 'layout.replace("odd", "even").partition',
              other(layout="odd", variant="softplus"), "at inference:"),
        Fault("a head norm without its weight", RMSNorm.forward, "widened(self.weight)",
              "widened(self.weight) ** (len(self.weight) > 4)", other(head="both", variant="rndembqk"), "at inference:"),
    ],
    test_models.test_skips: [
        Fault("a skipped mixer takes its feed-forward along", Block.forward, 'if skip == "skip" and', "if skip and",
              kind("approximate", "even", mode="skip_mixer"), "at inference:"),
        Fault("a skip leaves the feed-forward", Block.forward, 'if skip == "skip" and', "if False and",
              kind("mlp", "even", mode="skip"), "at inference:"),
    ],
    test_models.test_new_weights_leave_nothing_of_the_old_behind: [
        Fault("the side stream is not made again", side_stream.SideMemory.of, "made_from != self._made_from", "False",
              kind("rndembqk", "even"), "after loading:"),
        Fault("an update in place is not seen", side_stream._versions, "x._version", "x.requires_grad or x._version",
              kind("rndembqk", "even"), "after an update"),
        Fault("new tensors are not seen", side_stream._versions, "x.data_ptr(), ", "",
              kind("fixedseqqk", "uniform", "grouped"), "after new"),
        Fault("an optimiser's step is not seen", side_stream._versions, "return _steps", "return 0",
              kind("rndembqk", "even"), "optimiser's step:"),
        Fault("eval() keeps the old side stream", Decoder.train, "self.side_memory.clear()", "pass",
              kind("rndembqk", "even"), "no version, and eval"),
    ],
    # ---- causality ----
    test_causality.test_causal_by_gradient: [
        Fault("the future leaks by one, a little", Approximate.mix, "return block", "return 1e-9 * v.roll(-1, 2) + block",
              kind("approximate", "even"), "sees the text beyond"),
        Fault("the side stream is one position ahead", Block.mixer_inputs, "hidden[:1]", "hidden[:1].roll(-1, 1)",
              kind("rndembqk"), "sees the side stream beyond"),
        Fault("positions see what precedes them alone", Decoder.embed, "self.embed_tokens(input_ids)",
              "nn.functional.pad(self.embed_tokens(input_ids), (0, 0, 1, 0))[:, :-1]", kind("mlp"),
              "position 0 does not see itself"),
    ],
    test_causality.test_another_future_leaves_the_past_as_it_is_to_the_bit: [
        Fault("the future leaks in a running mean", NonApproximate.mix, "return Run", "return 1e-3 * v.roll(-1, 2) + Run",
              kind("nonapproximate", length=33, dtype=half), "know what follows"),
        Fault("the first position sees the last", Standard.mix, "return F", "return 1e-12 * v.roll(1, 2) + F",
              kind("standard", length=31, dtype=double), "know what follows"),
        Fault("positions do not see themselves", Decoder.embed, "self.embed_tokens(input_ids)",
              "nn.functional.pad(self.embed_tokens(input_ids), (0, 0, 1, 0))[:, :-1]",
              kind("softplus", length=31, dtype=single), "does not know itself"),
    ],
    # ---- golden numbers ----
    test_golden.test_a_train_step_gives_the_numbers_on_record: [
        Fault("a weight is drawn otherwise", decoder.initialise, "{seed}/", "{seed + 1}/", {"variant": "mlp"},
              r"loss +\| "),
        Fault("the loss counts one target twice", LanguageModel.loss, "return head",
              "return (1 + 1 / input_ids.numel()) * head", {"variant": "rndembqk"}, r"gradient_norm +\| "),
        Fault("an update is a hundredth too large", optimizer.make_optimizer, "lr=rate", "lr=1.01 * rate",
              {"variant": "standard"}, r"loss_after +\| "),
    ],
    test_golden.test_the_numbers_on_record_are_the_references: [
        Fault("numbers of another loss are on record", naive.next_token_loss, ".mean()", ".mean() * 1.0001",
              {"variant": "approximate"}, r"loss +\| "),
    ],
}
# fmt: on
