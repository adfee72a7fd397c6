"""Figures 7 and 8: indicators of attention per layer, uniform beside hybrid, a line of charts a variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from deconattn.report import style
from deconattn.report.attention import Layers, analysis_gaps, attention_of
from deconattn.report.drawing import Drawing
from deconattn.report.names import family_of, in_order, layout_label, run_label
from deconattn.report.radar import Panel
from deconattn.report.radar_sheet import sheet
from deconattn.report.results import Results

HYBRID = "even"


def options_for(families: str) -> dict[str, str]:
    """What such a figure can be told."""
    return {
        "model": "the model to draw",
        "variants": f"the variants to draw, a line each (default: {families})",
    }


def of_families(*keys: str) -> Callable[[Results, str], list[str]]:
    """The default variants: those of the runs that are in these families (see `names.FAMILIES`)."""
    return lambda results, model: [v for v in results.variants(model) if family_of(v).key in keys]


def draw_pairs(results: Results, options: dict[str, Any], default: Callable[[Results, str], Sequence[str]]) -> Drawing:
    """The figure for `options["model"]`: of each variant the uniform model, and the hybrid's two kinds of layers."""
    model = options["model"]
    results.check_models([model])
    variants = in_order(options.get("variants") or default(results, model))
    wanted = [("standard", "uniform"), *((v, layout) for v in variants for layout in ("uniform", HYBRID))]
    found = attention_of(results, model)
    gaps = analysis_gaps(results, model, wanted)
    gaps += [f"{run_label(*pair)}: not in this grid" for pair in wanted if results.select_runs(model, *pair).empty]
    standard = found.get(("standard", "uniform"))
    reference = None if standard is None else standard.values.mean().to_frame().T
    lines = [_line(variant, found.get((variant, "uniform")), found.get((variant, HYBRID))) for variant in variants]
    shown = {pair: found[pair] for pair in wanted if pair in found}
    note = "Hybrid: every other layer keeps standard attention." if any(layout == HYBRID for _, layout in shown) else ""
    figure = sheet(results, model, lines, [note, style.gap_line(gaps)], reference)
    return Drawing(figure, [run for layers in shown.values() for run in layers.runs], gaps)


def _line(variant: str, uniform: Layers | None, hybrid: Layers | None) -> list[Panel]:
    label = layout_label(HYBRID)
    kept = None if hybrid is None else hybrid.of(True)
    replaced = None if hybrid is None else hybrid.of(False)
    return [
        _panel(f"{variant}\nuniform: all layers replaced", variant, False, None if uniform is None else uniform.values),
        _panel(f"{variant}\n{label}: replaced layers", variant, True, replaced),
        _panel(f"{variant}\n{label}: standard layers", "standard", True, kept),
    ]


def _panel(title: str, variant: str, hybrid: bool, values: pd.DataFrame | None) -> Panel:
    absent = "nothing to draw" if values is None else "no attention map in these layers"
    return Panel(title, variant, hybrid, values, absent)
