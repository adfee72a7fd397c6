"""A figure on disk: SVG, PDF, PNG, and the JSON of what it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deconattn.files import sha256_file, write_json
from deconattn.report import style
from deconattn.report.cost_results import CostResults
from deconattn.report.drawing import Drawing
from deconattn.report.provenance import provenance
from deconattn.report.results import Results


def write_figure(
    exhibit: str,
    module: Any,
    results: Results | CostResults,
    out: Path,
    options: dict[str, Any],
    made: Mapping[str, Any],
) -> list[Path]:
    """Draw with `module.draw` and write `<exhibit>.{svg,pdf,png,json}`, the JSON last; returns the paths."""
    with style.styled():
        drawing: Drawing = module.draw(results, options)
        paths = style.save(drawing.figure, out, exhibit)
    record = out / f"{exhibit}.json"
    more = getattr(module, "TABLES", ())
    origin = provenance(results, exhibit, drawing.runs, drawing.gaps, options, more)
    write_json(record, {**origin, **made, "files": {path.name: sha256_file(path) for path in paths}})
    return [*paths, record]
