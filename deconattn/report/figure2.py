"""Figure 2: the distribution of rndembqk's scores before the softmax per layer, uniform beside hybrid."""

from __future__ import annotations

from typing import Any

from deconattn.report import distributions
from deconattn.report.attention import SCORE_TABLES
from deconattn.report.drawing import Drawing
from deconattn.report.results import Results

TABLES = SCORE_TABLES
OPTIONS = distributions.OPTIONS


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 2 for `options["model"]`; a missing run is named at the foot."""
    return distributions.draw_scores(
        results,
        options,
        "rndembqk",
        "In a replaced layer the scores are those of the side stream, the same for every input; "
        "in a standard layer, those of held-out text.",
    )
