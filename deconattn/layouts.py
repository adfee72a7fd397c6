"""Which layers of a model keep standard attention (docs/method.md; the paper's Table 11).

Standard library only: the workflow engine reads this in every job.
"""

from __future__ import annotations

from collections.abc import Callable

from deconattn.errors import UserError
from deconattn.nearest import not_one_of

_RULES: dict[str, Callable[[int], list[int]]] = {
    "uniform": lambda n: [],
    "even": lambda n: list(range(2, n + 1, 2)),
    "odd": lambda n: list(range(1, n + 1, 2)),
    "top": lambda n: list(range(1, n // 2 + 1)),
    "middle": lambda n: [*range(1, n // 4 + 1), *range(n - n // 4 + 1, n + 1)],
    "bottom": lambda n: list(range(n // 2 + 1, n + 1)),
    "quarter": lambda n: list(range(4, n + 1, 4)),
    "first": lambda n: [1],
    "last": lambda n: [n],
    "bilateral": lambda n: sorted({1, n}),
}

LAYOUTS: tuple[str, ...] = tuple(_RULES)
"""Names of the layouts; `even` is what the paper calls "hybrid", `quarter` its "25%"."""


def standard_layers(layout: str, n: int) -> tuple[int, ...]:
    """Layers that keep standard attention in a model of `n` layers, counted from 1, ascending.

    Halves and quarters of `n` round down. A small `n` may leave none of the layers standard, or all of them. A layout of
    one's own is written as its name and its layers: "mine:1,4,9".

    Raises:
        UserError: a layout that does not exist, a layer that the model has not, or `n` below 1.
    """
    name, own, layers = layout.partition(":")
    if n < 1:
        raise UserError(f"layout {layout!r} over {n} layers: a model has at least 1 layer")
    if own:
        if not all(layer.isdecimal() for layer in layers.split(",")):
            raise UserError(f"layout {layout!r}: must be a name and numbers of layers, as 'mine:1,4,9'")
        found = tuple(sorted({int(layer) for layer in layers.split(",")}))
        if not 1 <= found[0] <= found[-1] <= n:
            raise UserError(f"layout {layout!r}: layers must be between 1 and {n}")
        return found
    if name not in _RULES:
        raise UserError(not_one_of(name, "layout", LAYOUTS))
    return tuple(_RULES[name](n))


def is_standard(layout: str, n: int) -> tuple[bool, ...]:
    """For each of `n` layers, counted from 0, whether it keeps standard attention. Errors as `standard_layers`."""
    kept = set(standard_layers(layout, n))
    return tuple(layer + 1 in kept for layer in range(n))
