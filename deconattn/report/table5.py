"""Table 5: how the costs of every variant grow (SPEC §8)."""

from __future__ import annotations

from typing import Any

from deconattn.report.cost_results import CostResults
from deconattn.report.cost_tables import OPTIONS, build_growth
from deconattn.report.tables import Table

__all__ = ["OPTIONS", "READER", "draw"]
READER = CostResults


def draw(results: CostResults, options: dict[str, Any]) -> Table:
    """Table 5 for `options["model"]`."""
    return build_growth(results, "table5", "Table 5: how costs grow", options["model"])
