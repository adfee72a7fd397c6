"""What the exhibits are called, and under which heading the report files them. Imports nothing: the workflow reads it."""

from __future__ import annotations

TITLE = {
    "table1": "Table 1 · all variants",
    "table2": "Table 2 · the largest model",
    "table3": "Table 3 · grouped queries",
    "table4": "Table 4 · context lengths",
    "figure1": "Figure 1 · attention indicators",
    "figure2": "Figure 2 · scores, rndembqk",
    "figure3": "Figure 3 · nine layouts",
    "figure4": "Figure 4 · comparison",
    "figure5": "Figure 5 · training loss",
    "figure6": "Figure 6 · scores, nonapproximate",
    "figure7": "Figure 7 · indicators, uniform and hybrid",
    "figure8": "Figure 8 · indicators, uniform and hybrid",
}
_QUALITY, _TRAINING, _INSIDE = "1 What the models can do", "2 How they train", "3 What their attention does"
PROVENANCE = "4 Where it comes from"
CATEGORY = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "figure3", "figure4"), _QUALITY),
    "figure5": _TRAINING,
    **dict.fromkeys(("figure1", "figure2", "figure6", "figure7", "figure8"), _INSIDE),
}
