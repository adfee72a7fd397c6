"""What Figure 4 compares: for each size of ours and for the paper's, the values of all models in some columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deconattn.report.names import Column, count_label
from deconattn.report.published import PAPER, load_published, published_cells
from deconattn.report.results import Cell, Results

LAYOUTS = ("uniform", "even")


@dataclass(frozen=True)
class Band:
    """One row of panels: its heading, the cell of every variant × layout × column, and what columns it has."""

    heading: str
    columns: list[Column]
    cells: dict[tuple[str, str, str], Cell]
    chance: dict[str, float]


def ours(results: Results, model: str, variants: Sequence[str], columns: list[Column]) -> Band:
    """The values of one model of ours; its heading says how large it is and what it was trained on."""
    cells = {
        (variant, layout, column.key): results.cell(model, variant, layout, "full", column)
        for variant in variants
        for layout in LAYOUTS
        for column in columns
        if not results.select_runs(model, variant, layout).empty
    }
    parameters, tokens, seeds = results.parameters(model), results.tokens(model), results.seeds(model)
    parts = [f"Ours: {model}"]
    parts += [] if parameters is None else [f"{count_label(parameters)} parameters"]
    parts += [] if tokens is None else [f"{count_label(tokens)} tokens"]
    parts.append(f"{seeds} seed{'s' if seeds > 1 else ''}")
    chance = {c.key: results.baseline("random_guess", c).value for c in columns if c.is_accuracy}
    return Band(", ".join(parts), columns, cells, {key: value for key, value in chance.items() if value is not None})


def papers(variants: Sequence[str], columns: list[Column]) -> Band:
    """The paper's 500m models (Table 1)."""
    published = load_published("table1")
    cells: dict[tuple[str, str, str], Cell] = {}
    chance: dict[str, float] = {}
    for variant in ("random_guess", *variants):
        for layout in LAYOUTS:
            for key, cell in published_cells(published, variant, layout, "full", columns).items():
                if cell.value is not None and variant != "random_guess":
                    cells[variant, layout, key] = cell
                elif cell.value is not None and key.endswith(".acc"):
                    chance[key] = cell.value
    heading = f"Published ({PAPER}): 500m, 15B tokens of SlimPajama – another size, other data"
    return Band(heading, columns, cells, chance)
