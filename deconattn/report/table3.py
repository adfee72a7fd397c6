"""Table 3: nonapproximate and rndembqk, uniform and hybrid, with grouped-query attention (500m)."""

from __future__ import annotations

from typing import Any

from deconattn.report.names import COLUMNS
from deconattn.report.results import Results
from deconattn.report.tables import Table, build

OPTIONS: dict[str, str] = {"model": "the model of the table"}


def draw(results: Results, options: dict[str, Any]) -> Table:
    """Table 3 for `options["model"]`."""
    title = f"Table 3: the variants with grouped queries ({options['model']})"
    return build(results, "table3", title, options["model"], COLUMNS)
