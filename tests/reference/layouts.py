"""Which layers keep standard attention: the table of ten layouts, written out a second time."""

from __future__ import annotations

LAYOUTS = ("uniform", "even", "odd", "top", "middle", "bottom", "quarter", "first", "last", "bilateral")


def standard_layers(layout: str, layers: int) -> set[int]:
    """The 1-based numbers of the layers that keep standard attention; halves and quarters round down.

    Raises KeyError for a layout that is not in the table.
    """
    every = range(1, layers + 1)
    half, quarter = layers // 2, layers // 4
    keep = {
        "uniform": lambda n: False,
        "even": lambda n: n % 2 == 0,
        "odd": lambda n: n % 2 == 1,
        "top": lambda n: n <= half,
        "middle": lambda n: n <= quarter or n > layers - quarter,
        "bottom": lambda n: n > half,
        "quarter": lambda n: n % 4 == 0,
        "first": lambda n: n == 1,
        "last": lambda n: n == layers,
        "bilateral": lambda n: n in (1, layers),
    }[layout]
    return {n for n in every if keep(n)}


def simple_layers(variant: str, layout: str, layers: int) -> set[int]:
    """The 1-based numbers of the layers that hold the variant's mixer; none for `standard`, in any layout."""
    if variant == "standard":
        return set()
    return set(range(1, layers + 1)) - standard_layers(layout, layers)
