"""Table 8: what decoding keeps of the past, for every variant (SPEC §8)."""

from __future__ import annotations

from typing import Any

from deconattn.report.cost_results import CostResults
from deconattn.report.cost_tables import OPTIONS, Agreement, Line, build_costs
from deconattn.report.tables import Table

__all__ = ["OPTIONS", "READER", "draw"]
READER = CostResults
LINES = (
    Line("state_bytes_bf16", "bf16"),
    Line("held_state_bytes_bf16", "bf16, measured"),
    Line("held_state_bytes", "float32, measured"),
    Line("printed_cache_bytes", "2 bytes a number", published=True),
)
AGREEMENTS = (
    Agreement("state_bytes_bf16", "held_state_bytes_bf16", "Bytes in bf16 by formula and as they are held"),
    Agreement("state_bytes", "held_state_bytes", "Bytes in float32 by formula and as they are held"),
)


def draw(results: CostResults, options: dict[str, Any]) -> Table:
    """Table 8 for `options["model"]`."""
    title = "Table 8: what decoding keeps in one layer"
    return build_costs(results, "table8", title, options["model"], "bytes", LINES, AGREEMENTS, ("state_bytes",))
