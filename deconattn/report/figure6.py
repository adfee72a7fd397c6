"""Figure 6: the distribution of nonapproximate's scores before the softmax per layer, uniform beside hybrid."""

from __future__ import annotations

from typing import Any

from deconattn.report import distributions
from deconattn.report.attention import SCORE_TABLES
from deconattn.report.drawing import Drawing
from deconattn.report.results import Results

TABLES = SCORE_TABLES
OPTIONS = distributions.OPTIONS


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 6 for `options["model"]`; a missing run is named at the foot."""
    return distributions.draw_scores(
        results,
        options,
        "nonapproximate",
        "A replaced layer has one score a key, a standard layer one a query and key.",
    )
