"""Table 2: nonapproximate and rndembqk, uniform and hybrid, at the largest size (1.7b, with qk_norm)."""

from __future__ import annotations

from typing import Any

from deconattn.report.names import COLUMNS
from deconattn.report.results import Results
from deconattn.report.tables import Table, build

OPTIONS: dict[str, str] = {"model": "the model of the table"}


def draw(results: Results, options: dict[str, Any]) -> Table:
    """Table 2 for `options["model"]`."""
    title = f"Table 2: the variants in a larger model ({options['model']})"
    return build(results, "table2", title, options["model"], COLUMNS)
