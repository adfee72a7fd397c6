"""Table 6: FLOPs of every variant, of a prefill and of decoding one more token (SPEC §8)."""

from __future__ import annotations

from typing import Any

from deconattn.report.cost_results import CostResults
from deconattn.report.cost_tables import OPTIONS, Agreement, Line, build_costs
from deconattn.report.tables import Table

__all__ = ["OPTIONS", "READER", "draw"]
READER = CostResults
LINES = (
    Line("prefill_flops_square", "prefill, all pairs"),
    Line("prefill_flops_causal", "prefill, causal"),
    Line("counted_prefill_flops", "prefill, counted"),
    Line("printed_prefill_flops", "prefill", published=True),
    Line("decode_flops", "decoding, a token"),
    Line("counted_decode_flops", "decoding, counted"),
    Line("printed_decode_flops", "decoding, a token", published=True),
)
AGREEMENTS = (
    Agreement(
        "prefill_flops", "counted_prefill_flops", "FLOPs of a prefill as it runs, by formula and by FlopCounterMode,"
    ),
    Agreement("decode_flops", "counted_decode_flops", "FLOPs of a decoding step, by formula and by FlopCounterMode,"),
)


def draw(results: CostResults, options: dict[str, Any]) -> Table:
    """Table 6 for `options["model"]`."""
    quantities = ("prefill_flops_square", "prefill_flops_causal", "prefill_flops", "decode_flops")
    title = "Table 6: FLOPs of one layer's mixer"
    return build_costs(results, "table6", title, options["model"], "FLOPs", LINES, AGREEMENTS, quantities)
