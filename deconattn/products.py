"""Matrix products of a CPU in float32, by the faster of the two libraries that torch carries.

`torch.mm` calls MKL, which takes its AVX-512 kernels on its maker's processors alone; oneDNN takes its own wherever the
processor has the instructions, twice as fast there (docs/benchmarks.md). torch calls it for low precisions and in compiled code
with frozen weights only, by an operator that is no public one: torch is pinned, and a torch without it is taken to MKL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from deconattn.autograd import first_order

FROM_MULTIPLICATIONS = 2**20  # below, what oneDNN does before it begins takes longer than the product
ROWS_OF_A_SUM = 512  # of a gradient that are added at once, from the cache

KNOWN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn_is_faster() -> bool:
    wide = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    processors = Path("/proc/cpuinfo")
    if not (wide and KNOWN and processors.is_file()):
        return False
    with processors.open() as first:
        return "GenuineIntel" not in first.read(1000)


ONEDNN_IS_FASTER = _onednn_is_faster()  # this processor has AVX-512 and is not of MKL's maker


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Weights that are part of a larger tensor would be packed number by number, a thousand times slower.
    dense = weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, dense, bias, "none", [], "")


# What compiles takes oneDNN's operator for one of frozen weights, and fails. It calls this one as it stands.
_OPERATORS = torch.library.Library("deconattn", "DEF")
_OPERATORS.define("product(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_OPERATORS.impl("product", _onednn, "CPU")


@torch.library.register_fake("deconattn::product", lib=_OPERATORS)
def _shape_of_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _flops(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * x[0] * x[1] * weight[0]


# FlopCounterMode would pass over them.
register_flop_formula(torch.ops.deconattn.product)(_flops)
if KNOWN:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias: x (n, k), weight (m, k), either perhaps a transposed view, bias (m,) → (n, m). Has no gradient."""
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    return torch.ops.deconattn.product(x, weight, bias) if torch.compiler.is_compiling() else _onednn(x, weight, bias)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ · right, in total's precision: left (n, m), right (n, k), total (m, k)."""
    if _by_onednn(left.t(), right.t()) and total.dtype == left.dtype:
        for start in range(0, len(total), ROWS_OF_A_SUM):
            rows = slice(start, start + ROWS_OF_A_SUM)
            total[rows] += product(left[:, rows].t(), right.t())
    elif total.dtype == left.dtype:
        total.addmm_(left.t(), right)
    elif total.is_cpu:  # where adding another precision makes a copy in one's own of all that is added
        for start in range(0, len(total), ROWS_OF_A_SUM):
            rows = slice(start, start + ROWS_OF_A_SUM)
            total[rows] += left[:, rows].t() @ right
    else:
        total += left.t() @ right


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        ONEDNN_IS_FASTER
        and not torch.compiler.is_exporting()  # what is exported runs without this package
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.shape[1] == weight.shape[1]  # or torch says what is wrong
        and x.shape[0] * weight.shape[0] * weight.shape[1] >= FROM_MULTIPLICATIONS
    )


class Linear(nn.Linear):
    """torch's Linear, its products by `product`: x (…, in) → (…, out)."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.flatten(0, -2)
        if torch.is_autocast_enabled("cpu") or not _by_onednn(rows, self.weight):
            return F.linear(input, self.weight, self.bias)
        return _Linear.apply(rows, self.weight, self.bias).view(*input.shape[:-1], len(self.weight))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if of_x else None,
            product(grad.t(), x.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )
