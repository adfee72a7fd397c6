"""What the functions with a backward of their own have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Of a backward that is no function of its inputs' graph: whoever asks for its derivative gets an error, not a wrong one.

    torch's `once_differentiable` gives none to `torch.autograd.grad` where another path leads to the same tensor.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise NotImplementedError(
                f"{backward.__qualname__} has no derivative of its own: create_graph=True cannot be"
            )
        return backward(ctx, *grads)

    return guarded
