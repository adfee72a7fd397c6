"""Figure 1: indicators of attention per layer, the standard model and every uniform variant side by side."""

from __future__ import annotations

from typing import Any

from deconattn.report import style
from deconattn.report.attention import INDICATOR_TABLES, analysis_gaps, attention_of, without_map
from deconattn.report.drawing import Drawing
from deconattn.report.names import in_order
from deconattn.report.radar import Panel
from deconattn.report.radar_sheet import sheet
from deconattn.report.results import Results

TABLES = INDICATOR_TABLES
OPTIONS: dict[str, str] = {
    "model": "the model to draw",
    "variants": "the variants to draw (default: all that the runs have)",
}
_COLUMNS = 3


def draw(results: Results, options: dict[str, Any]) -> Drawing:
    """Figure 1 for `options["model"]`; a variant that has no map, or no run, is left out and named at the foot."""
    model = options["model"]
    results.check_models([model])
    variants = in_order(options.get("variants") or results.variants(model))
    found = attention_of(results, model)
    shown = {variant: found[variant, "uniform"] for variant in variants if (variant, "uniform") in found}
    wanted = [(variant, "uniform") for variant in variants]
    gaps = analysis_gaps(results, model, wanted)
    panels = [Panel(variant, variant, False, layers.values) for variant, layers in shown.items()]
    lines = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    figure = sheet(results, model, lines, [without_map(results, model, wanted, found), style.gap_line(gaps)])
    return Drawing(figure, [run for layers in shown.values() for run in layers.runs], gaps)
