"""Every variant and layout held to the naive reference: logits, gradients, maps, causality, counts, skips."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from deconattn.model import LanguageModel, ModelConfig
from tests.reference import naive, qwen
from tests.reference.cases import pairwise
from tests.reference.layouts import LAYOUTS, simple_layers
from tests.reference.parameters import (
    BUFFERS,
    attention_size,
    complete,
    parameter_shapes,
    random_state_dict,
)

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 331,
    "max_position_embeddings": 160,
    "rope_theta": 1000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
HEADS: dict[str, dict[str, Any]] = {
    "bias": {"qk_norm": False, "attention_bias": True},
    "norm": {"qk_norm": True, "attention_bias": False},
    "both": {"qk_norm": True, "attention_bias": True},
    "neither": {"qk_norm": False, "attention_bias": False},
}
FACTORS: dict[str, tuple[Any, ...]] = {
    "layout": LAYOUTS,
    "variant": naive.VARIANTS[1:],
    "length": (33, 127, 31, 2, 1),
    "head": tuple(HEADS),
    "kv": (4, 2, 1),
    "tied": (False, True),
}
# `standard` has no simple layers, so it is one model in any layout.
STANDARD = {**FACTORS, "layout": ("uniform",), "variant": ("standard",)}
CASES = [tuple(case.items()) for case in pairwise(FACTORS) + pairwise(STANDARD)]
Case = tuple[tuple[str, Any], ...]
IDS = ["-".join(str(value) for _, value in case) for case in CASES]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=IDS)
VARIANTS = pytest.mark.parametrize("variant", naive.VARIANTS)
SIMPLE = pytest.mark.parametrize("variant", naive.VARIANTS[1:])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tensors this small only wait for each other on two threads, for minutes where the machine is busy."""
    torch.set_num_threads(1)


def fields_of(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in complete(config).items() if name != "head_dim"}


def uniform_or_even(variant: str) -> tuple[str, ...]:
    return ("uniform",) if variant == "standard" else ("uniform", "even")


def config_of(case: Case) -> dict[str, Any]:
    c = dict(case)
    chosen = {"variant": c["variant"], "layout": c["layout"], "num_key_value_heads": c["kv"]}
    return SHAPE | chosen | HEADS[c["head"]] | {"tie_word_embeddings": c["tied"]}


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def load(model: torch.nn.Module, state: dict[str, Tensor]) -> torch.nn.Module:
    """Strictly, but for the head of a tied model, which may be listed twice or once."""
    problems = model.load_state_dict(state, strict=False)
    tied = set() if "lm_head.weight" in state else {"lm_head.weight"}
    assert not problems.unexpected_keys and set(problems.missing_keys) <= tied, problems
    return model


def width_of(config: dict[str, Any]) -> int | None:
    """The inner width that the package chose for an `mlp` mixer."""
    shapes = {n: p.shape for n, p in LanguageModel(ModelConfig(**fields_of(config))).named_parameters()}
    found = [s[0] for n, s in shapes.items() if n.endswith("self_attn.gate_proj.weight")]
    return found[0] if found else None


def build(
    config: dict[str, Any], seed: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """The package's model with random weights, and those weights in float64."""
    state = random_state_dict(config, seed, width_of(config))
    return load(LanguageModel(ModelConfig(**fields_of(config))).to(dtype), state), state


@cache
def reference(case: Case) -> tuple[naive.Trace, dict[str, Tensor]]:
    config = config_of(case)
    state, ids = random_state_dict(config, 1, width_of(config)), tokens(2, dict(case)["length"])
    with torch.no_grad():
        trace = naive.forward(config, state, ids)
    return trace, naive.gradients(config, state, ids)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    assert actual.shape == expected.shape, what
    difference = ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
    assert difference < tolerance, f"{what} relative difference {difference:.2e}"


def gradients_of(model: torch.nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Of the loss, or of the mean of cos(logits) where there is no next token."""
    value = model.loss(ids) if ids.shape[1] > 1 else model(ids).cos().mean()
    model.zero_grad(set_to_none=True)
    value.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def assert_gradients(model: torch.nn.Module, ids: Tensor, expected: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor's difference relative to its own largest entry, or a thousandth of the largest of all."""
    found = gradients_of(model, ids)
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    worst = {}
    for name, gradient in expected.items():
        unit = torch.maximum(gradient.abs().max(), 1e-3 * largest)
        worst[name] = ((found[name] - gradient).abs().max() / unit).item()
    # NaN compares false, so the comparison is written to fail on it.
    assert not (wrong := {n: f"{w:.1e}" for n, w in worst.items() if not w < tolerance}), wrong


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """‖found − expected‖ / ‖expected‖ over all tensors together."""
    error = sum((found[n].double() - expected[n]).square().sum().item() for n in expected)
    return (error / sum(g.square().sum().item() for g in expected.values())) ** 0.5


@EVERY_CASE
def test_logits_in_float64(case: Case) -> None:
    model, _ = build(config_of(case), 1)
    ids, expected = tokens(2, dict(case)["length"]), reference(case)[0].logits
    with torch.no_grad():
        assert_close(model.train()(ids), expected, 1e-9, "training mode:")
        assert_close(model.eval()(ids), expected, 1e-9, "evaluation mode:")


@EVERY_CASE
def test_logits_in_float32(case: Case) -> None:
    model, _ = build(config_of(case), 1, torch.float32)
    with torch.no_grad():
        logits = model.eval()(tokens(2, dict(case)["length"]))
    assert logits.dtype == torch.float32
    assert (logits - reference(case)[0].logits).abs().max() < 1e-4


@EVERY_CASE
def test_loss_and_the_gradient_of_every_parameter(case: Case) -> None:
    model, _ = build(config_of(case), 1)
    ids, (trace, expected) = tokens(2, dict(case)["length"]), reference(case)
    if ids.shape[1] > 1:
        loss = model.train().loss(ids)
        assert loss.shape == ()
        assert_close(loss.detach(), naive.next_token_loss(trace.logits, ids), 1e-9)
    assert_gradients(model.train(), ids, expected, 1e-9)


@EVERY_CASE
def test_raw_scores(case: Case) -> None:
    config = config_of(case)
    model, ids = build(config, 1)[0], tokens(2, dict(case)["length"])
    decoder = model.model
    embeddings = x = decoder.embed(ids)
    visible = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    scores = reference(case)[0].scores
    with torch.no_grad():
        for block, expected in zip(decoder.layers, scores, strict=True):
            found = block.self_attn.raw_scores(block.mixer_inputs(x, embeddings)[1])
            if expected is None:
                assert found is None
            else:
                wanted = expected if expected.dim() == 3 else expected[..., visible]
                assert_close(found[-wanted.shape[0] :].expand_as(wanted), wanted, 1e-9)
            x = block(x, embeddings, None)


@EVERY_CASE
def test_attention_maps(case: Case) -> None:
    model, _ = build(config_of(case), 1)
    with torch.no_grad():
        found = model.eval().attention_maps(tokens(2, dict(case)["length"]))
    expected = reference(case)[0].maps
    assert [a is None for a in found] == [a is None for a in expected]
    for n, (a, b) in enumerate(zip(found, expected, strict=True), start=1):
        if b is not None:
            assert a.shape[0] in (1, 2)
            assert (a.expand_as(b) - b).abs().max() < 1e-9, f"layer {n}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_standard_is_the_transformers_model(kv_heads: int, qk_norm: bool, dtype: torch.dtype) -> None:
    c = SHAPE | {"variant": "standard", "num_key_value_heads": kv_heads, "qk_norm": qk_norm}
    model, _ = build(c, 2, dtype)
    hf = qwen.empty(c).to(dtype).eval()
    hf.load_state_dict(model.state_dict(), strict=True)
    ids = tokens(2, 127)
    with torch.no_grad():
        logits = model.eval()(ids)
        if dtype == torch.float32:
            assert (logits - hf(ids).logits).abs().max() < 1e-4
            return
        # Relative, as transformers rotates and normalises in float32 even here; the same in float64 is 1e-10.
        assert_close(logits, hf(ids).logits, 1e-6)
        qwen.double_precision(hf, c)
        assert_close(logits, hf(ids).logits, 1e-10)


@pytest.mark.parametrize("length", [300, 520])
@VARIANTS
def test_long_texts(variant: str, length: int) -> None:
    """Lengths at which a mixer may work block by block, with an incomplete last block."""
    shape = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    c = SHAPE | shape | {"max_position_embeddings": 640, "variant": variant}
    model, state = build(c, 3)
    ids = tokens(1, length)
    with torch.no_grad():
        trace = naive.forward(c, state, ids)
        assert_close(model.eval()(ids), trace.logits, 1e-9)
        for a, b in zip(model.attention_maps(ids), trace.maps, strict=True):
            assert b is None or (a - b).abs().max() < 1e-9
        assert (build(c, 3, torch.float32)[0].eval()(ids) - trace.logits).abs().max() < 1e-4
    assert_gradients(model.train(), ids, naive.gradients(c, state, ids), 1e-9)


@pytest.mark.parametrize("length", [33, 520])
@VARIANTS
def test_mixed_precision(variant: str, length: int) -> None:
    """Under bfloat16 autocast every variant is as near to float64 as standard attention is, near 1 %."""
    shape = {"num_hidden_layers": 2, "max_position_embeddings": 640, "variant": variant}
    c = SHAPE | shape
    model, state = build(c, 11, torch.float32)
    ids = tokens(1, length)
    expected, gradients = naive.forward(c, state, ids).logits, naive.gradients(c, state, ids)
    with torch.autocast("cpu", torch.bfloat16):
        logits, found = model.train()(ids), gradients_of(model, ids)
    assert (logits - expected).norm() < 0.02 * expected.norm()
    assert distance(found, gradients) < 0.03


@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("length", [33, 150])
def test_nonapproximate_with_scores_beyond_a_thousand(length: int, layout: str) -> None:
    c = SHAPE | {"variant": "nonapproximate", "layout": layout}
    model, state = build(c, 4)
    for name in state:
        n = int(name.split(".")[2]) + 1 if "k_proj" in name else 0
        if n in simple_layers("nonapproximate", layout, 4):
            state[name] = state[name] * 1500.0
    load(model, state)
    ids = tokens(2, length)
    trace, gradients = naive.forward(c, state, ids), naive.gradients(c, state, ids)
    assert trace.scores[0].max() > 1e3 and trace.scores[0].min() < -1e3
    with torch.no_grad():
        assert_close(model(ids), trace.logits, 1e-9)
    assert_gradients(model, ids, gradients, 1e-7)
    single = load(LanguageModel(ModelConfig(**fields_of(c))), state)
    # A score of 10³ has an error of 10⁻⁴ in float32, and A inherits it as a relative one, once a layer.
    with torch.no_grad():
        assert_close(single(ids).double(), trace.logits, 1e-2)
    assert distance(gradients_of(single, ids), gradients) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradients_of(single, ids)
    assert all(g.isfinite().all() for g in mixed.values())


@VARIANTS
def test_causal_by_gradient(variant: str) -> None:
    """One token a position, so that rows of the embedding's gradient are positions."""
    length = 130
    for layout in uniform_or_even(variant):
        c = SHAPE | {"variant": variant, "layout": layout, "num_key_value_heads": 2}
        model, state = build(c, 5)
        order = torch.randperm(c["vocab_size"], generator=torch.Generator().manual_seed(5))
        ids, side = order[:length], order[length : length + c["max_position_embeddings"]]
        if variant == "fixedseqqk":
            load(model, state | {"model.side_input_ids": side})
        model.train()
        for i in (0, 1, 15, 16, 31, 32, 64, 100, length - 1):
            logits = model(ids[None])[0, i]
            table = model.get_parameter("model.embed_tokens.weight")
            (gradient,) = torch.autograd.grad(logits.cos().sum(), table)
            moved = gradient.abs().amax(dim=1)
            assert not moved[ids[i + 1 :]].any(), f"{layout}: position {i} sees a later token"
            assert not moved[side[i + 1 :]].any(), f"{layout}: position {i} sees later side tokens"
            mixes = variant != "mlp" or layout == "even"
            seen = ids[: i + 1] if mixes else ids[i : i + 1]
            assert moved[seen].all(), f"{layout}: position {i} misses an earlier token"
            if not mixes:
                assert not moved[ids[:i]].any(), f"position {i} of a model that mixes nothing sees another"
            if variant == "fixedseqqk" and i > 0:
                assert moved[side[: i + 1]].all(), "training does not reach the side stream"


@VARIANTS
def test_causal_by_perturbation(variant: str) -> None:
    for layout in uniform_or_even(variant):
        model, _ = build(SHAPE | {"variant": variant, "layout": layout}, 6)
        ids = tokens(2, 129)
        with torch.no_grad():
            before = model.eval()(ids)
            for i in (1, 16, 33, 64, 100, 128):
                other = ids.clone()
                other[:, i:] = tokens(2, 129 - i, seed=i + 1)
                after = model(other)
                assert (before[:, :i] - after[:, :i]).abs().max() < 1e-12
                assert (before[:, i] - after[:, i]).abs().max() > 1e-3


@VARIANTS
def test_the_same_alone_batched_and_padded(variant: str) -> None:
    for layout in uniform_or_even(variant):
        model, _ = build(SHAPE | {"variant": variant, "layout": layout, "num_key_value_heads": 2}, 7)
        ids = tokens(3, 70)
        with torch.no_grad():
            together = model.eval()(ids)
            for b in range(3):
                assert_close(model(ids[b : b + 1]), together[b : b + 1], 1e-11)
            assert_close(model(ids[:, :41]), together[:, :41], 1e-11)
            assert_close(model(ids), together, 1e-11, "after a shorter text:")


@VARIANTS
def test_new_weights_leave_nothing_of_the_old_behind(variant: str) -> None:
    """Whatever evaluation keeps between calls (a side stream, a map) must go when the weights change."""
    for layout in uniform_or_even(variant):
        c = SHAPE | {"variant": variant, "layout": layout}
        model, state = build(c, 8)
        ids, other = tokens(2, 20), random_state_dict(c, 9, width_of(c))
        with torch.no_grad():
            model.eval()(ids)
            load(model, other)
            assert_close(model(ids), naive.forward(c, other, ids).logits, 1e-9, "after loading:")
            for name, parameter in model.named_parameters():
                parameter.copy_(state[name])
            mixed = other | {n: v for n, v in state.items() if n not in BUFFERS}
            expected = naive.forward(c, mixed, ids)
            assert_close(model(ids), expected.logits, 1e-9, "after an update in place:")
        assert (model.loss(ids) - naive.next_token_loss(expected.logits, ids)).abs() < 1e-9


@pytest.mark.parametrize("mode", ["skip", "skip_mixer"])
@SIMPLE
def test_skips(variant: str, mode: str) -> None:
    for layout, head in zip(("even", "top", "first", "quarter"), HEADS, strict=True):
        c = SHAPE | {"variant": variant, "layout": layout} | HEADS[head]
        model, state = build(c, 10)
        ids = tokens(2, 33)
        with torch.no_grad():
            full = model.eval()(ids)
            model.skip = mode
            assert_close(model(ids), naive.forward(c, state, ids, mode).logits, 1e-9, f"{layout}:")
            model.skip = None
            assert_close(model(ids), full, 1e-12, "after the skip:")


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("head", list(HEADS))
def test_parameter_counts(head: str, kv_heads: int) -> None:
    counts = set()
    for variant in naive.VARIANTS:
        for layout in uniform_or_even(variant):
            c = SHAPE | HEADS[head] | {"variant": variant, "layout": layout, "num_key_value_heads": kv_heads}
            model, width = LanguageModel(ModelConfig(**fields_of(c))), width_of(c)
            found = {name: tuple(p.shape) for name, p in model.named_parameters()}
            assert found == parameter_shapes(c, width)
            total = sum(p.numel() for p in model.parameters())
            if variant == "mlp":
                assert abs(3 * 32 * width - attention_size(c)) <= 3 * 32 / 2
            else:
                counts.add(total)
            buffers = {name for name in model.state_dict() if name in BUFFERS}
            assert buffers == set(random_state_dict(c, 0, width)) & set(BUFFERS)
    assert len(counts) == 1
