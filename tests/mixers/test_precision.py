"""How exact each form is in each precision, against float64 on the very same numbers.

Inputs that make a budget mean something: queries, keys and values from N(0, 1), so that scores have a standard deviation of 1,
rounded to the precision under test before the truth is taken of them. What is left is the error of the form alone, and
each of the output and the gradients of queries, keys and values keeps the budget by itself. Of a whole model, whose
projections round too, the logits do, and the gradient as one vector: a single bias, whose terms all but cancel, does not in
bf16 for any variant, softmax included.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel
from deconattn.mixers.base import QKVMixer
from tests.conftest import slow
from tests.mixers.cases import (
    BF16,
    FLOAT32,
    FLOAT64,
    SENSITIVE,
    assert_near,
    build,
    config_of,
    each_pair,
    each_variant,
    joined,
    load,
    mixer_of,
    normal,
    reference,
    reference_gradients,
    rms,
    tokens,
)
from tests.reference import naive

BUDGETS = {torch.float64: FLOAT64, torch.float32: FLOAT32, torch.bfloat16: BF16}
each_precision = pytest.mark.parametrize("dtype", BUDGETS, ids=str)
each_length = pytest.mark.parametrize("length", [33, 257])


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as `dtype` can hold it, in float64, to be differentiated."""
    return x.to(dtype).double().requires_grad_()


@each_precision
@each_length
@pytest.mark.parametrize("head_dim", [4, 16, 64])
@each_variant
def test_the_form_keeps_its_budget(variant: str, head_dim: int, length: int, dtype: torch.dtype) -> None:
    config = config_of(variant, hidden_size=4 * head_dim)
    mixer = mixer_of(config)
    if not isinstance(mixer, QKVMixer):
        return
    rows = 1 if mixer.qk_source == "side" else 2
    wide = [rounded(normal(n, 4, length, head_dim, seed=i), dtype) for i, n in enumerate((rows, rows, 2))]
    narrow = [x.detach().to(dtype).requires_grad_() for x in wide]
    if variant in naive.VARIANTS:
        pairs = zip(*(x.flatten(0, 1) for x in wide[:2]), strict=True)
        maps = [naive.head_map(variant, naive.rotated_scores(variant, q, k), head_dim) for q, k in pairs]
        attention = torch.stack(maps).unflatten(0, (rows, 4))
    else:
        attention = mixer.attention_map_of(*wide[:2])
    expected, found = attention @ wide[2], mixer.mix(*narrow)
    assert found.dtype == dtype
    budget = BUDGETS[dtype] * SENSITIVE.get(variant, 1)
    assert_near(found, expected, budget, "output:")
    direction = normal(*expected.shape, seed=3).to(dtype)
    truths = torch.autograd.grad((expected * direction.double()).sum(), wide)
    gradients = torch.autograd.grad((found * direction).sum(), narrow)
    for name, gradient, truth in zip("qkv", gradients, truths, strict=True):
        assert_near(gradient, truth, budget, f"gradient of {name}:")


@pytest.mark.parametrize(
    ("dtype", "budget"), [(torch.float32, FLOAT32), *slow((torch.bfloat16, 3 * BF16))], ids=["float32", "autocast"]
)
@each_pair
def test_a_whole_model_in_float32_and_in_mixed_precision(
    variant: str, layout: str, heads: str, dtype: torch.dtype, budget: float
) -> None:
    """Logits, and the gradient as one vector; in bf16 each of the three layers has its own error to add."""
    budget *= SENSITIVE.get(variant, 1)
    config, ids = config_of(variant, layout, heads), tokens(2, 257)
    model, state = build(config, dtype=torch.float32)
    held = {name: x.float().double() if x.is_floating_point() else x for name, x in state.items()}
    expected = reference_gradients(config, held, ids)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits, loss = model.train()(ids), model.loss(ids)
    loss.backward()
    assert_near(logits, reference(config, held, ids).logits, budget, "logits:")
    found = joined(model.get_parameter(name).grad for name in expected)
    # Each of three sensitive layers multiplies the errors of those beneath it: in bf16 little is left of a gradient.
    budget = min(1.0, budget * SENSITIVE.get(variant, 1) ** 2)
    assert_near(found, joined(expected.values()), budget, "gradient:")


def extreme(length: int) -> Tensor:
    """Scores of one head from −1,500 to 1,500, with ties, steps of all sizes and long stretches below an early maximum."""
    u = 500 * normal(length, seed=4).clamp(-3, 3)
    u[length // 3 : length // 2] = -1000.0
    u[length // 2] = 1500.0
    u[-length // 4 :] = u[-length // 4 :].abs() % 1.0 + 1499.0
    return u.float().double()  # what float32 can hold too


@pytest.mark.parametrize(
    ("length", "dtype"),
    [*((n, torch.float32) for n in (31, 33, 127, 257)), (257, torch.float64), (1100, torch.float64)],
    ids=str,
)
def test_nonapproximate_is_exact_at_scores_of_a_thousand(length: int, dtype: torch.dtype) -> None:
    """Forward and backward of the scan, over four levels in float64."""
    mixer = mixer_of(config_of("nonapproximate"))
    u, v = extreme(length).requires_grad_(), rounded(normal(length, 4, seed=5), torch.float32)
    expected = naive.head_map("nonapproximate", u, 4) @ v
    direction = rounded(normal(length, 4, seed=6), torch.float32).detach()
    truths = torch.autograd.grad((expected * direction).sum(), (u, v))
    found, of_u, of_v = mixed_by_scores(mixer, u, v, direction, dtype)
    assert_near(found, expected, BUDGETS[dtype], "output:")
    assert_near(of_u, truths[0], BUDGETS[dtype], "gradient of u:")
    assert_near(of_v, truths[1], BUDGETS[dtype], "gradient of v:")


@pytest.mark.parametrize(("length", "budget"), [(33, 5e-8), (257, 5e-8), (2048, 5e-7)])
def test_nonapproximate_has_no_gradient_where_one_key_has_all_weight(length: int, budget: float) -> None:
    """∂/∂u where it is next to nothing, against the gradient that comes in, in float32.

    Scores of a few hundred leave one key with all weight for long stretches: every o_i is its v_j, and ∂/∂u, of differences
    of the two, is 1e-22 of the incoming gradient or 0. No float32 form has digits of that, and no relative budget could be kept;
    what counts is how much is there that should not be. Over twenty seeds it was at most 5e-9 of the incoming gradient up to
    257 positions and 1.3e-7 at 2,048; where v_j and o_i are summed apart it is 1e-7 at any length.
    """
    mixer = mixer_of(config_of("nonapproximate"))
    for seed in range(5):
        u = rounded(333 * normal(length, seed=seed).clamp(-3, 3), torch.float32)
        v, direction = (rounded(x, torch.float32).detach() for x in normal(2, length, 4, seed=100 + seed))
        (truth,) = torch.autograd.grad((naive.head_map("nonapproximate", u, 4) @ v * direction).sum(), u)
        of_u = mixed_by_scores(mixer, u, v, direction, torch.float32)[1]
        assert_near(of_u, truth, budget, f"gradient of u, seed {seed}:", unit=rms(direction))


def mixed_by_scores(
    mixer: torch.nn.Module, u: Tensor, v: Tensor, direction: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """What one head of nonapproximate mixes of v (L, 4) by the scores u (L,), and the gradients of u and v.

    SiLU(64) = 64 to the last bit, so that u = 64·k/√4 is a key's first number times 32, without rounding.
    """
    length = len(u)
    query, key = torch.zeros(length, 4, dtype=dtype), torch.zeros(length, 4, dtype=dtype)
    query[:, 0], key[:, 0] = 64.0, u.detach() / 32
    inputs = [x[None, None].requires_grad_() for x in (key, v.detach().to(dtype))]
    found = mixer.mix(query[None, None], *inputs)
    of_key, of_v = torch.autograd.grad((found * direction.to(dtype)).sum(), inputs)
    return found[0, 0], of_key[0, 0, :, 0] / 32, of_v[0, 0]


@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("length", [33, 150])
def test_nonapproximate_trains_and_decodes_at_scores_of_a_thousand(length: int, layout: str) -> None:
    """Whole models: float64 against the reference, finite in float32 and bf16."""
    config, ids = config_of("nonapproximate", layout), tokens(2, length)
    model, state = build(config, 4)
    for name in state:
        if "k_proj" in name and (layout == "uniform" or ".1." not in name):
            state[name] = state[name] * 3000.0
    load(model, state)
    trace = naive.forward(config, state, ids)
    assert trace.scores[0].max() > 1e3 and trace.scores[0].min() < -1e3
    with torch.no_grad():
        assert_near(model(ids), trace.logits, 1e-10)  # u of 10³ has an absolute error of 10⁻¹³, and A inherits it
        decoded = model.model.new_state()
        steps = [model.lm_head(model.model(token, None, decoded)) for token in ids.split(1, dim=1)]
        assert_near(torch.cat(steps, dim=1), trace.logits, 1e-10)
    model.loss(ids).backward()
    expected = naive.gradients(config, state, ids)
    unit = 1e-3 * max(rms(gradient) for gradient in expected.values())
    for name, parameter in model.named_parameters():
        assert_near(parameter.grad, expected[name], 1e-9, name, unit)
    single = LanguageModel(ModelConfig(**config))
    load(single, state)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = single.loss(ids)
        single.zero_grad()
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in single.parameters())
