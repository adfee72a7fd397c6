"""Faults of decoding, of generation by transformers, and of what a variant says that it costs."""

from __future__ import annotations

from typing import Any

import torch

from deconattn import costs, decoder, huggingface
from deconattn.huggingface import DeconAttnConfig, DeconAttnForCausalLM
from deconattn.mixers import approximate, base, blocks, cache, formulas, mlp, nonapproximate
from deconattn.mixers.approximate import TaylorState
from deconattn.mixers.base import QKVMixer, ScoreMixer
from deconattn.mixers.cache import CacheLengths, KVCache
from deconattn.mixers.nonapproximate import NonApproximate
from tests.mixers import (
    test_decoding,
    test_formulas,
    test_transformers,
)
from tests.mixers.faults import Fault, Faults, kind

double, single, half = torch.float64, torch.float32, torch.bfloat16


def sized(variant: str) -> dict[str, Any]:
    return {"variant": variant, "kv_heads": 2}


# fmt: off
FAULTS: Faults = {
    # ---- decoding ----
    test_decoding.test_prefill_and_decode_are_one_forward: [
        Fault("a prompt mixes values of one position earlier", ScoreMixer.mix_step, "self.mix(q, k, v)",
              "self.mix(q, k, v.roll(1, 2))", kind("standard", length=33), "prefill:"),
        Fault("positions stand still in decoding", CacheLengths.after,
              "(self.rows + (count if counts is None else counts), self.most + count, equal)",
              "(self.rows, self.most + count, False)", kind("staticembqk", length=31), "decode:"),
        Fault("Taylor sums leave out the last key", TaylorState.sum_up, "< lengths[:, None]", "< lengths[:, None] - 1",
              kind("approximate", length=257), "decode:"),
        Fault("a prefill's state is one value short", KVCache.append, "found.append(buffer[:, :, :end])",
              "found.append(buffer[:, :, :end].clone())\n        buffer[:, :, end - 1] *= past.most > 0",
              kind("rndembqk", "even", length=257), "decode:"),
    ],
    test_decoding.test_a_prompt_may_be_taken_in_by_chunks: [
        Fault("tokens of a chunk see what follows them", TaylorState.step, ".masked_fill(future(count, q.device), 0.0)",
              "", kind("approximate", size=7), "chunks:"),
        Fault("a chunk forgets what came before", NonApproximate.mix_step, "if state.tensors:", "if False:",
              kind("nonapproximate", size=2), "chunks:"),
        Fault("rows of unequal length take a chunk at the same place", KVCache.append, "if past.equal:", "if True:",
              kind("standard", size=40), "row 1:"),
    ],
    test_decoding.test_rows_of_unequal_length_repeated_and_in_another_order: [
        Fault("a state takes padding in", NonApproximate.mix_step, "if counts is not None:", "if False:",
              kind("nonapproximate", lengths=(5, 1, 9)), "row 0:"),
        Fault("Taylor sums take padding in", TaylorState.sum_up, "< lengths[:, None]",
              "< 0 * lengths[:, None] + lengths.max()", kind("approximate", lengths=(40, 3, 22)), "row 1:"),
        Fault("states stay in their order", cache.State.select, "index.to(x.device)", "torch.arange(len(index)) % len(x)",
              kind("standard", "uniform", "grouped", lengths=(5, 1, 9)), "once row"),
        Fault("lengths stay in their order", CacheLengths.select, "[index]",
              "[torch.arange(len(index)) % len(self.rows)]", kind("fixedseqqk", lengths=(40, 3, 22)), "once row"),
    ],
    test_decoding.test_tokens_taken_back_are_forgotten: [
        Fault("tokens taken back stay", cache.DecodingState.crop, "self.seen.after(-count)", "self.seen",
              kind("standard"), "relative RMS"),
        Fault("tokens are taken back from sums", base.Mixer.new_state, "State()", "State(croppable=True)",
              kind("nonapproximate", "uniform", "grouped"), "relative RMS"),
    ],
    test_decoding.test_under_autocast_states_keep_float32_sums: [
        Fault("sums are rounded under autocast", QKVMixer.step, "with without_autocast(v.device):", "if True:",
              kind("nonapproximate"), "rounded sums"),
    ],
    # ---- transformers ----
    test_transformers.test_saved_and_found_by_auto_model_it_is_the_same: [
        Fault("a checkpoint lacks the random side stream", DeconAttnForCausalLM.__init__, "self.post_init()",
              'self.post_init()\n    self._keys_to_ignore_on_save = ["model.side_embeddings"]', kind("rndembqk"),
              "side_embeddings"),
        Fault("a checkpoint lacks the text of the side stream", DeconAttnForCausalLM.__init__, "self.post_init()",
              'self.post_init()\n    self._keys_to_ignore_on_save = ["model.side_input_ids"]', kind("fixedseqqk", "even"),
              "side_input_ids"),
        Fault("the variant is lost", DeconAttnConfig.shape, "self.to_dict()", 'self.to_dict() | {"variant": "standard"}',
              kind("softplus"), "equal"),
    ],
    test_transformers.test_the_same_log_likelihoods_alone_batched_and_padded: [
        Fault("padding on the left is counted", huggingface._padded_text, "if mask is None:", "if True:",
              kind("standard", lengths=(30, 17, 2)), "padded on the left:"),
        Fault("padding on the right is taken for text", huggingface._padded_text, "return mask",
              "return ~mask if bool(mask[:, 0].all()) else mask", kind("mlp", "even", lengths=(30, 17, 2)),
              "padded on the right:"),
        Fault("rows that share a map are folded back in the wrong order", blocks.block_attention, "permute(2, 0, 1, 3)",
              "permute(2, 0, 1, 3).flip(0)", kind("rndembqk", lengths=(130, 65, 33)), "batched:"),
    ],
    test_transformers.test_generation_with_a_cache_is_generation_without: [
        Fault("states are not reordered under beams", cache.State.select, "index.to(x.device)",
              "torch.arange(len(index)) % len(x)", kind("standard", mode="beams"), "equal"),
        Fault("generation leaves its cache alone", DeconAttnForCausalLM._prepare_cache_for_generation, "makes = bool",
              'model_kwargs["use_cache"] = generation_config.use_cache = False\n    makes = bool',
              kind("mlp", "even", mode="greedy"), "None"),
        Fault("a step is slightly off", ScoreMixer.mix_step, "self.attend(q, k, v, past)",
              "self.attend(q, k, v * (1 + 1e-9), past)", kind("staticembqk", "even", mode="greedy"), "relative RMS"),
    ],
    test_transformers.test_generation_continues_each_row_as_it_would_alone: [
        Fault("generation counts padding", huggingface._padded_text, "if mask is None:", "if True:",
              kind("nonapproximate", "even"), "=="),
    ],
    # ---- costs ----
    test_formulas.test_parameters_are_those_counted: [
        Fault("biases are not counted", decoder.parameter_count, "return sum", "return -config.hidden_size + sum",
              kind("standard", head="bias"), "assert"),
        Fault("the inner width is two too large", mlp.inner_width, "return max", "return 2 + max",
              kind("mlp", head="norm"), "assert"),
    ],
    test_formulas.test_flops_are_those_counted_and_those_of_the_definition: [
        Fault("a multiply-add of a projection is one FLOP", formulas.projection_flops, "2 * d", "d",
              sized("nonapproximate"), "^prefill"),
        Fault("blocks are counted as the square", formulas.block_pairs, "(end - start) * end", "(end - start) * length",
              sized("softplus"), "^prefill"),
        Fault("any number is stated for the square", formulas.pair_flops, "projections + a_pair * square_pairs(length)",
              "10**15", sized("softplus"), "^square"),
        Fault("running sums are counted as pairs", nonapproximate.flops, "square=projections",
              "square=projections + 4 * batch * length**2 * config.hidden_size", sized("nonapproximate"), "^square"),
        Fault("one map for all is counted for each row", formulas.pair_flops, "maps * length, batch",
              "batch * length, batch", sized("fixedseqqk"), "^prefill"),
        Fault("queries see more pairs than there are", formulas.causal_pairs, "(length + 1) // 2", "length + 1",
              sized("rndembqk"), "^causal"),
        Fault("queries do not see themselves", formulas.causal_pairs, "(length + 1)", "(length - 1)", sized("standard"),
              "^causal"),
        Fault("causal FLOPs are forgotten", mlp.flops, "causal=prefill", "causal=0", sized("mlp"), "^causal"),
        Fault("any number is stated for a step", formulas.pair_flops, "+ 4 * d * batch * length", "+ 1",
              sized("softplus"), "a step"),
        Fault("sums are counted without the keys' ones", approximate.features, "return 1 +", "return",
              sized("approximate"), "a step"),
    ],
    test_formulas.test_bytes_of_states_are_those_held: [
        Fault("pages are not counted", formulas.kv_bytes, "paged(length)", "length", kind("staticembqk", dtype=single),
              "tokens"),
        Fault("sums are held in bf16, not float32", nonapproximate.state_bytes, "max(itemsize, FLOAT)", "itemsize",
              kind("nonapproximate", dtype=half), "tokens"),
        Fault("standard layers are counted as simple ones", costs.layer_costs, "standard if kept else simple", "simple",
              kind("nonapproximate", "even", dtype=single), "tokens"),
        Fault("a state is a part of a tensor that is kept whole", NonApproximate.mix_step,
              '"maximum": maximum[..., -1:].clone()', '"maximum": maximum[..., -1:]',
              kind("nonapproximate", dtype=single), "storages"),
    ],
}
# fmt: on
