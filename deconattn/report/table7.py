"""Table 7: memory of every variant in training (SPEC §8)."""

from __future__ import annotations

from typing import Any

from deconattn.report.cost_results import CostResults
from deconattn.report.cost_tables import OPTIONS, Agreement, Line, build_costs
from deconattn.report.tables import Table

__all__ = ["OPTIONS", "READER", "draw"]
READER = CostResults
LINES = (
    Line("activation_bytes", "activations, formula (float32, CPU)"),
    Line("held_activation_bytes", "activations, measured"),
    Line("peak_bytes", "peak of forward and backward, measured"),
)
AGREEMENTS = (
    Agreement("activation_bytes", "held_activation_bytes", "Activations by formula and as autograd holds them"),
)


def draw(results: CostResults, options: dict[str, Any]) -> Table:
    """Table 7 for `options["model"]`."""
    title = "Table 7: memory of one layer's mixer in training"
    table = build_costs(results, "table7", title, options["model"], "bytes", LINES, AGREEMENTS, ())
    if table.rows:
        table.lead = [text for text in table.lead if text.startswith("ours")]
        table.notes = [
            *table.notes[:-1],
            "Activations are the storages that autograd holds between forward and backward, without parameters, the mixer's "
            "inputs and RoPE's tables.",
            "The peak is above weights and inputs; output, gradients of weights and inputs, and temporaries are in it.",
            "What the paper prints of activation memory is not known here.",
        ]
    return table
