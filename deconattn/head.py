"""Cross-entropy of a large vocabulary without ever holding all logits.

Rows are taken in chunks. A chunk's logits become e^{z − max} in place, once, and give the loss and at the same time both
gradients, which are kept instead of logits: three matrix products, as many as without chunks, and one buffer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from deconattn.autograd import first_order
from deconattn.functions import product_dtype, widened, without_autocast
from deconattn.products import add_product, product

ROWS_AT_ONCE = 256  # of a chunk, or as many as the model is wide: adding to the weight's gradient has a price a chunk
LOGITS_AT_ONCE = 2**25  # rows × V of the buffer, whatever the vocabulary
IN_CACHE = 2**19  # logits whose exponentials are taken together on a CPU: 2 MB, from its cache and not from memory


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Cross-entropy −Σ log softmax(hidden · weightᵀ)[targets], in nats, a scalar in at least float32.

    Shapes: hidden (N, d), weight (V, d), targets (N,). Under autocast the products are in its precision and the gradient of
    the weight is summed in the weight's own.
    """
    low = torch.promote_types(product_dtype(hidden), product_dtype(weight))
    needed = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    scale = 1.0 / len(targets) if reduction == "mean" and len(targets) else 1.0
    with without_autocast(hidden.device):
        return HeadLoss.apply(hidden, weight, targets, low, scale, needed)


class HeadLoss(torch.autograd.Function):
    """`scale` × summed cross-entropy of hidden (N, d), weight (V, d), targets (N,), products in dtype `low`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, low: torch.dtype, scale: float, needed: bool
    ) -> Tensor:
        h, w = hidden.to(low), weight.to(low)
        total = torch.zeros((), dtype=torch.float64, device=h.device)
        grad_h = torch.empty_like(hidden) if needed else None
        # Summed in at least float32: a token that comes often would have its sum rounded each time.
        grad_w = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32)) if needed else None
        step = rows_at_once(len(h), *w.shape) if len(h) else 1
        for start in range(0, len(h), step):
            rows = slice(start, min(start + step, len(h)))
            total += _of_rows(h[rows], w, targets[rows], scale, None if grad_h is None else grad_h[rows], grad_w)
        if grad_w is not None:
            grad_w = grad_w.index_add_(0, targets, hidden.to(grad_w.dtype), alpha=-scale).to(weight.dtype)
        # Not `save_for_backward`: what backward hands on must have no second owner, or it would be copied.
        ctx.gradients = (grad_h, grad_w)
        return (total * scale).to(torch.promote_types(hidden.dtype, torch.float32))

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        if ctx.gradients is None:
            raise RuntimeError("the head's gradients are made with the loss and handed on once: no second backward")
        (grad_h, grad_w), ctx.gradients = ctx.gradients, None
        return (
            None if grad_h is None else grad_h.mul_(grad),
            None if grad_w is None else grad_w.mul_(grad),
            None,
            None,
            None,
            None,
        )


def _of_rows(
    h: Tensor, w: Tensor, targets: Tensor, scale: float, grad_h: Tensor | None, grad_w: Tensor | None
) -> Tensor:
    """The summed loss of some rows; their gradients are written into `grad_h` and, but for the targets, added to `grad_w`.

    A function, so that its logits are gone before the next rows' are made.
    """
    logits = product(h, w)
    chosen = widened(logits.gather(1, targets.unsqueeze(1)))
    sums, tops = exponentials(logits)
    if grad_h is not None and grad_w is not None:
        # ∂/∂z = e^z / Σ e^z − [target]: the sum divides the small factor, and the target is taken out of it apart.
        inverse = scale / sums
        grad_h.copy_(widened(product(logits, w.t())) * inverse - widened(w[targets]) * scale)
        add_product(grad_w, logits, (h * inverse).to(h.dtype))
    return (sums.log() + tops - chosen).sum()


def rows_at_once(rows: int, vocabulary: int, size: int) -> int:
    """Rows of a chunk: as even as can be, within both limits."""
    most = max(1, min(max(ROWS_AT_ONCE, size), LOGITS_AT_ONCE // vocabulary))
    return -(-rows // -(-rows // most))


def exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replace each row z of logits (n, V) by e^{z − max z}; returns their sums and the maxima, (n, 1) in at least float32."""
    tops = widened(logits.amax(1, keepdim=True))
    sums = torch.empty_like(tops)
    step = max(1, len(logits) if logits.is_cuda else IN_CACHE // logits.shape[1])
    for start in range(0, len(logits), step):
        rows = slice(start, min(start + step, len(logits)))
        some = widened(logits[rows]).sub_(tops[rows]).exp_()
        torch.sum(some, 1, keepdim=True, out=sums[rows])
        if some.dtype != logits.dtype:
            logits[rows] = some
    return sums, tops
