"""Layouts against method.md, Layouts: its table at 24 layers, and its words for any number of layers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.errors import UserError
from deconattn.layouts import LAYOUTS, is_standard, standard_layers
from tests.reference import layouts as reference

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


def test_the_ten_layouts_are_the_published_ones_at_24_layers():
    assert {layout: standard_layers(layout, 24) for layout in LAYOUTS} == TABLE_AT_24


@given(st.sampled_from(sorted(TABLE_AT_24)), st.integers(1, 200))
def test_any_number_of_layers(layout, n):
    """Against method.md in words, decided layer by layer."""
    layers = standard_layers(layout, n)
    assert layers == tuple(sorted(reference.standard_layers(layout, n)))
    assert is_standard(layout, n) == tuple(i + 1 in layers for i in range(n))


def test_halves_and_quarters_round_down():
    assert standard_layers("top", 7) == (1, 2, 3) and standard_layers("bottom", 7) == (4, 5, 6, 7)
    assert standard_layers("middle", 7) == (1, 7) and standard_layers("middle", 3) == ()


def test_a_layout_of_ones_own_is_a_name_and_its_layers():
    assert standard_layers("mine:9,1,4", 12) == (1, 4, 9)
    assert is_standard("mine:2", 3) == (False, True, False)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("evem", r"^'evem' is not a layout; did you mean 'even'\? \(allowed: uniform, even, "),
        ("mine:1,13", "layers must be between 1 and 12"),
        ("mine:0", "layers must be between 1 and 12"),
        ("mine:", "must be a name and numbers of layers, as 'mine:1,4,9'"),
        ("mine:1,-2", "must be a name and numbers"),
    ],
)
def test_a_layout_that_cannot_be(layout: str, said: str):
    with pytest.raises(UserError, match=said):
        standard_layers(layout, 12)


def test_a_model_without_layers_is_refused():
    with pytest.raises(UserError, match=r"^layout 'even' over 0 layers: a model has at least 1 layer$"):
        is_standard("even", 0)
