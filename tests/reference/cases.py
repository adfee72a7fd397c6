"""A short list of cases in which every two values of every two factors meet at least once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Cases as dicts factor → value, found greedily and the same in every run."""
    names = list(factors)
    index = {name: range(len(factors[name])) for name in names}
    open_pairs = {((a, i), (b, j)): None for a, b in combinations(names, 2) for i in index[a] for j in index[b]}
    cases = []
    while open_pairs:
        chosen = dict(next(iter(open_pairs)))
        for name in names:
            if name in chosen:
                continue

            def gain(i: int, name: str = name, chosen: dict[str, int] = chosen) -> int:
                """How many pairs that no case holds yet this value would add."""
                pairs = [[(name, i), other] for other in chosen.items()]
                ordered = [sorted(pair, key=lambda p: names.index(p[0])) for pair in pairs]
                return sum(tuple(pair) in open_pairs for pair in ordered)

            # Starting each search elsewhere spreads the ties over a factor's values.
            start = len(cases) % len(index[name])
            chosen[name] = max([*index[name][start:], *index[name][:start]], key=gain)
        for pair in combinations([(name, chosen[name]) for name in names], 2):
            open_pairs.pop(pair, None)
        cases.append({name: factors[name][chosen[name]] for name in names})
    return cases
