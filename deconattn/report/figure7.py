"""Figure 7: indicators of attention per layer, uniform beside hybrid, of the variants in mathematical form."""

from __future__ import annotations

from typing import Any

from deconattn.report.attention import INDICATOR_TABLES
from deconattn.report.drawing import Drawing
from deconattn.report.radar_pairs import draw_pairs, of_families, options_for
from deconattn.report.results import Results

TABLES = INDICATOR_TABLES
OPTIONS: dict[str, str] = options_for("approximate, nonapproximate")


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 7 for `options["model"]`; a missing run is left out and named at the foot."""
    return draw_pairs(results, options, of_families("form"))
