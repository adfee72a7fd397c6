"""Matrix products of a CPU: both libraries against float64, on tensors that lie in memory in every way that a model has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deconattn import products
from deconattn.products import Linear, add_product, product

N, K, M = 100, 96, 208  # 100 · 96 · 208 multiplications are more than a product needs for oneDNN


@pytest.fixture(params=[True, False], ids=["oneDNN", "MKL"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Each library in turn, whatever this processor is."""
    if request.param and not products.KNOWN:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", request.param)
    yield request.param


def apart(got: Tensor, expected: Tensor) -> float:
    """Relative to the size of what is expected."""
    return float((got.double() - expected).norm() / expected.norm())


def lying(rows: int, columns: int, how: str) -> Tensor:
    """A float32 matrix (rows, columns) as a tensor of its own, a transposed one, or a part of a larger one."""
    if how == "own":
        return torch.randn(rows, columns)
    if how == "transposed":
        return torch.randn(columns, rows).t()
    if how == "rows":
        return torch.randn(2 * rows, columns)[3 : 3 + rows]
    if how == "columns":
        return torch.randn(rows, 2 * columns)[:, 5 : 5 + columns]
    return torch.randn(columns, 2 * rows).t()[7 : 7 + rows]  # a part of a transposed one


HOW = ["own", "transposed", "rows", "columns", "part of transposed"]


@pytest.mark.parametrize("weight_lies", HOW)
@pytest.mark.parametrize("x_lies", HOW)
def test_a_product_is_that_of_float64(onednn: bool, x_lies: str, weight_lies: str) -> None:
    x, weight, bias = lying(N, K, x_lies), lying(M, K, weight_lies), torch.randn(M)
    expected = x.double() @ weight.double().t() + bias.double()
    with FlopCounterMode(display=False) as counter:
        got = product(x, weight, bias)
    assert got.is_contiguous() and got.shape == (N, M)
    assert apart(got, expected) < 1e-6
    assert counter.get_total_flops() == 2 * N * K * M


@pytest.mark.parametrize("lies", HOW)
def test_a_sum_of_products_is_that_of_float64(onednn: bool, lies: str) -> None:
    left, right = lying(N, 1300, lies), lying(N, K, lies)  # more rows of the sum than are added at once
    total = torch.randn(1300, K)
    expected = total.double() + left.double().t() @ right.double()
    add_product(total, left, right)
    assert apart(total, expected) < 1e-6


def test_a_sum_of_low_products_is_kept_in_its_own_precision() -> None:
    left, right = torch.randn(N, M).bfloat16(), torch.randn(N, K).bfloat16()
    total = torch.zeros(M, K)
    for _ in range(100):
        add_product(total, left, right)
    assert apart(total, 100 * left.double().t() @ right.double()) < 4e-3


def test_a_sum_of_low_products_copies_little_of_it_at_a_time() -> None:
    left, right, total = torch.randn(8, 8192).bfloat16(), torch.randn(8, K).bfloat16(), torch.zeros(8192, K)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        add_product(total, left, right)
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    taken = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 0 < max(taken) < total.nbytes / 8


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(N, K), (4, 25, K), (1, K)], ids=["rows", "batch", "few"])
def test_a_linear_layer_has_torchs_values_and_gradients(onednn: bool, shape: tuple[int, ...], bias: bool) -> None:
    layer, reference = Linear(K, M, bias=bias), nn.Linear(K, M, bias=bias).double()
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(shape, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    got, expected = layer(x), reference(wide)
    grad = torch.randn_like(got)
    got.backward(grad)
    expected.backward(grad.double())
    assert got.shape == expected.shape and apart(got.detach(), expected.detach()) < 1e-6
    pairs = [(x, wide), *zip(layer.parameters(), reference.parameters(), strict=True)]
    for mine, theirs in pairs:
        assert mine.grad is not None and theirs.grad is not None
        assert mine.grad.stride() == mine.stride()  # what a fused optimiser relies on
        assert apart(mine.grad, theirs.grad) < 1e-6


def test_frozen_tensors_get_no_gradient(onednn: bool) -> None:
    layer, x = Linear(K, M), torch.randn(N, K)
    layer.bias.requires_grad_(False)
    layer(x).sum().backward()
    assert x.grad is None and layer.bias.grad is None and layer.weight.grad is not None


def test_autocast_decides_over_the_precision(onednn: bool) -> None:
    layer, x = Linear(K, M), torch.randn(N, K)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_each_library_is_called_where_it_is_meant(onednn: bool) -> None:
    def called(rows: int) -> bool:
        with torch.profiler.profile() as profile:
            Linear(K, M)(torch.randn(rows, K))
        return "mkldnn::_linear_pointwise" in {event.key for event in profile.key_averages()}

    assert called(N) == onednn
    assert not called(1)


def test_what_is_compiled_calls_the_same_library(onednn: bool) -> None:
    torch.compiler.reset()
    layer, reference, x = Linear(K, M), nn.Linear(K, M).double(), torch.randn(N, K, requires_grad=True)
    reference.load_state_dict(layer.state_dict())
    wide = x.detach().double().requires_grad_()
    compiled = torch.compile(layer, fullgraph=True)
    compiled(x).square().sum().backward()  # not the first call alone, which compiles
    layer.zero_grad()
    x.grad = None
    with torch.profiler.profile() as profile:
        compiled(x).square().sum().backward()
    reference(wide).square().sum().backward()
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls.get("mkldnn::_linear_pointwise", 0) == (3 if onednn else 0)
    assert x.grad is not None and wide.grad is not None and apart(x.grad, wide.grad) < 1e-6
    for mine, theirs in zip(layer.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None and apart(mine.grad, theirs.grad) < 1e-6


def test_what_is_exported_needs_nothing_of_this_package(onednn: bool) -> None:
    exported = torch.export.export(Linear(K, M), (torch.randn(N, K),))
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert "aten.linear.default" in called and all(name.startswith("aten.") for name in called)
