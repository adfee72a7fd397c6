"""Layouts against SPEC §4: its table at 24 layers, and its words for any number of layers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.errors import UserError
from deconattn.layouts import LAYOUTS, is_standard, standard_layers

TABLE_AT_24 = {
    "uniform": (),
    "even": (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24),
    "odd": (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23),
    "top": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    "middle": (1, 2, 3, 4, 5, 6, 19, 20, 21, 22, 23, 24),
    "bottom": (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24),
    "quarter": (4, 8, 12, 16, 20, 24),
    "first": (1,),
    "last": (24,),
    "bilateral": (1, 24),
}


def test_the_ten_layouts_are_the_ones_of_the_specification():
    assert set(LAYOUTS) == set(TABLE_AT_24)
    assert len(LAYOUTS) == 10


@pytest.mark.parametrize("layout", TABLE_AT_24)
def test_table_at_24_layers(layout):
    assert standard_layers(layout, 24) == TABLE_AT_24[layout]


def says(layout: str, i: int, n: int) -> bool:
    """SPEC §4 in words, decided layer by layer: does layer i of n (from 1) keep standard attention?"""
    return {
        "uniform": False,
        "even": i % 2 == 0,
        "odd": i % 2 == 1,
        "top": i <= n // 2,
        "middle": i <= n // 4 or n - i < n // 4,
        "bottom": i > n // 2,
        "quarter": i % 4 == 0,
        "first": i == 1,
        "last": i == n,
        "bilateral": i in (1, n),
    }[layout]


@given(st.sampled_from(sorted(TABLE_AT_24)), st.integers(1, 200))
def test_any_number_of_layers(layout, n):
    layers = standard_layers(layout, n)
    assert layers == tuple(i for i in range(1, n + 1) if says(layout, i, n))
    assert is_standard(layout, n) == tuple(i + 1 in layers for i in range(n))


@given(st.integers(1, 200))
def test_even_and_odd_and_top_and_bottom_share_the_layers_out(n):
    for one, other in (("even", "odd"), ("top", "bottom")):
        both = standard_layers(one, n) + standard_layers(other, n)
        assert sorted(both) == list(range(1, n + 1))


def test_a_layout_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"^'evem' is not a layout; did you mean 'even'\? \(allowed: uniform, even, "):
        standard_layers("evem", 24)


def test_a_model_without_layers_is_refused():
    with pytest.raises(UserError, match=r"^layout 'even' over 0 layers: a model has at least 1 layer$"):
        is_standard("even", 0)


def test_nothing_heavy_is_imported():
    code = "import sys, deconattn.layouts; print({'torch', 'pandas', 'transformers', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
