"""What the exhibits are called, and under which heading the report files them. Imports nothing: the workflow reads it."""

from __future__ import annotations

TITLE = {
    "table1": "Table 1 · all variants",
    "table2": "Table 2 · the largest model",
    "table3": "Table 3 · grouped queries",
    "table4": "Table 4 · context lengths",
    "table5": "Table 5 · how costs grow",
    "table6": "Table 6 · FLOPs",
    "table7": "Table 7 · memory in training",
    "table8": "Table 8 · inference cache",
    "figure1": "Figure 1 · attention indicators",
    "figure2": "Figure 2 · scores, rndembqk",
    "figure3": "Figure 3 · nine layouts",
    "figure4": "Figure 4 · comparison",
    "figure5": "Figure 5 · training loss",
    "figure6": "Figure 6 · scores, nonapproximate",
    "figure7": "Figure 7 · indicators, uniform and hybrid",
    "figure8": "Figure 8 · indicators, uniform and hybrid",
    "figure_costs": "Figure · measured costs over length",
}
_QUALITY, _TRAINING, _INSIDE = "1 What the models can do", "2 How they train", "3 What their attention does"
_COSTS = "4 What they cost"
CATEGORY = {
    **dict.fromkeys(("table1", "table2", "table3", "table4", "figure3", "figure4"), _QUALITY),
    "figure5": _TRAINING,
    **dict.fromkeys(("table5", "table6", "table7", "table8", "figure_costs"), _COSTS),
    **dict.fromkeys(("figure1", "figure2", "figure6", "figure7", "figure8"), _INSIDE),
}
