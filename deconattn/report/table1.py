"""Table 1: the variants, uniform, hybrid and with layers skipped, on seven NLU tasks, WikiText and LAMBADA (500m)."""

from __future__ import annotations

from typing import Any

from deconattn.report.names import COLUMNS
from deconattn.report.results import Results
from deconattn.report.tables import Table, build

OPTIONS: dict[str, str] = {"model": "the model of the table"}


def draw(results: Results, options: dict[str, Any]) -> Table:
    """Table 1 for `options["model"]`."""
    title = f"Table 1: which part of attention is needed ({options['model']})"
    return build(results, "table1", title, options["model"], COLUMNS)
