"""Tables of models × columns, ours beside the paper's: which rows, which columns, which values.

How they are printed is in `table_text`, `table_html`, `table_latex`; what each exhibit holds, in `table1` … `table4`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from deconattn.report import schema
from deconattn.report.caveat import caveats, limits_note
from deconattn.report.gaps import baseline_gaps, run_gaps
from deconattn.report.names import (
    BASELINES,
    FAMILIES,
    NLU_TASKS,
    OWN,
    TASK_LABELS,
    Column,
    Family,
    condition_label,
    family_of,
    in_order,
)
from deconattn.report.published import PAPER, TABLE_DESCRIPTIONS, load_published, published_cells, published_has
from deconattn.report.results import MISSING, Cell, Results
from deconattn.report.throughput import throughput_note


@dataclass(frozen=True)
class Row:
    """One model evaluated in one mode (or a baseline): our cells and the paper's by column key, {} where there is no row."""

    family: Family | None
    variant: str
    layout: str
    mode: str
    label: str
    ours: dict[str, Cell]
    published: dict[str, Cell]


@dataclass
class Table:
    """An exhibit ready to be printed; `lead` says what ours and the paper's values are, notes follow the values.

    `row_head` stands over the labels of the rows.
    """

    exhibit: str
    title: str
    model: str
    columns: list[Column]
    rows: list[Row]
    lead: list[str]
    notes: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    row_head: str = "layout, mode"

    def tidy(self) -> pd.DataFrame:
        """One row a cell and source (`ours`, `published`), columns as `schema.CELLS`; accuracies are fractions."""
        out = []
        for order, row in enumerate(self.rows):
            for source, cells in (("ours", row.ours), ("published", row.published)):
                for column in self.columns:
                    if column.key in cells:
                        out.append(self._record(order, row, source, column, cells[column.key]))
        return pd.DataFrame(out, columns=schema.CELLS.names)

    def _record(self, order: int, row: Row, source: str, column: Column, cell: Cell) -> dict[str, Any]:
        length = column.context_length if cell.context_length is None else cell.context_length
        return {
            "exhibit": self.exhibit, "order": order, "source": source,
            "model": self.model if source == "ours" else PAPER,
            "family": "baseline" if row.family is None else row.family.key,
            "variant": row.variant, "layout": row.layout, "mode": row.mode,
            "column": column.key, "task": column.task, "metric": column.metric, "context_length": length,
            "value": cell.value, "text": cell.text, "stderr": cell.stderr, "stderr_of": cell.stderr_of, "items": cell.items,
            "tasks": cell.tasks, "seeds": cell.seeds or None, "seeds_planned": cell.seeds_planned or None,
            "status": cell.status,
        }  # fmt: skip


def build(
    results: Results,
    exhibit: str,
    title: str,
    model: str,
    candidates: Sequence[Column],
    modes: Sequence[str] = ("full", "skip", "skip_mixer"),
    layouts: Sequence[str] = ("uniform", "even"),
) -> Table:
    """A table of the baselines, the standard model and every variant × layout × mode that we or the paper have.

    A column for which we have nothing is left out and named in the notes; if we have nothing at all the
    paper's columns are shown alone. Raises `UserError` for a model that no run has.
    """
    results.check_models([model])
    published = load_published(exhibit)
    ours = [column for column in candidates if results.has(model, column)]
    columns = ours or [column for column in candidates if published_has(published, column)]
    table = Table(exhibit, title, model, columns, [], [])
    table.rows = _baseline_rows(results, published, columns) if ours else []
    table.rows += _model_rows(results, model, published, columns, modes, layouts)
    table.lead = _lead(results, model, exhibit, layouts)
    left_out = [column for column in candidates if column not in columns]
    table.notes = _notes(results, model, table, left_out)
    table.gaps = run_gaps(results, model, [row.variant for row in table.rows]) + _cell_gaps(results, model, table)
    runs = results.runs
    shown = (runs["model"] == model) & (runs["status"] != "missing") & runs["layout"].isin(["uniform", *layouts])
    table.runs = runs.loc[shown, "run"].tolist()
    return table


def _baseline_rows(results: Results, published: pd.DataFrame, columns: list[Column]) -> list[Row]:
    rows = []
    # A baseline's average is over the tasks that the models are scored on, so that the two can be compared.
    scored = [column.task for column in columns if column.task in NLU_TASKS]
    for name, label in BASELINES.items():
        ours = {column.key: results.baseline(name, column, scored) for column in columns}
        paper = published_cells(published, name, "uniform", "full", columns)
        if paper or any(cell.status == "ok" for cell in ours.values()):
            rows.append(Row(None, name, "", "full", label, ours, paper))
    return rows


def _model_rows(
    results: Results,
    model: str,
    published: pd.DataFrame,
    columns: list[Column],
    modes: Sequence[str],
    layouts: Sequence[str],
) -> list[Row]:
    grid = set(zip(*(results.runs.loc[results.runs["model"] == model, c] for c in ("variant", "layout")), strict=True))
    evaluated = results.evaluation[results.evaluation["model"] == model]
    paper = set(zip(*(published[c] for c in ("variant", "layout", "mode")), strict=True))
    variants = in_order(v for v in {*(v for v, _ in grid), *(v for v, _, _ in paper)} if v not in BASELINES)
    modes_used = {"full", *evaluated["mode"].unique()}
    rows = []
    for variant in variants:
        for layout in ["uniform"] if variant == "standard" else layouts:
            for mode in ["full"] if layout == "uniform" else modes:
                in_grid = (variant, layout) in grid
                if not (in_grid and mode in modes_used) and (variant, layout, mode) not in paper:
                    continue
                # Ours has a line only where the configuration asks for it: a dash there means a gap.
                cells = {c.key: results.cell(model, variant, layout, mode, c) for c in columns} if in_grid else {}
                label = "" if variant == "standard" else condition_label(layout, mode)
                paper_cells = published_cells(published, variant, layout, mode, columns)
                rows.append(Row(family_of(variant), variant, layout, mode, label, cells, paper_cells))
    return rows


def _lead(results: Results, model: str, exhibit: str, layouts: Sequence[str]) -> list[str]:
    return [
        "ours: " + " ".join(caveats(results, model, layouts)),
        f"paper: the values printed in {PAPER}, {exhibit.replace('table', 'Table ')} "
        f"({TABLE_DESCRIPTIONS[exhibit]}). Another size and other data: for orientation, not a target.",
    ]


def _notes(results: Results, model: str, table: Table, left_out: list[Column]) -> list[str]:
    notes = []
    cells = [cell for row in table.rows for cell in row.ours.values()]
    if any(cell.stderr_of == "seeds" for cell in cells):
        seeds = max(cell.seeds_planned for cell in cells)
        notes.append(
            f"ours: mean ± standard deviation over n = {seeds} seeds, or over n as marked; paper: ± standard error."
        )
    else:
        notes.append("± is the standard error over the items of a task; it says nothing about other seeds.")
    average = [row.ours["nlu_avg.acc"].tasks for row in table.rows if row.ours.get("nlu_avg.acc", MISSING).tasks]
    if average and set(average) != {len(NLU_TASKS)}:
        there = [t for t in NLU_TASKS if any(f"{t}.acc" == c.key for c in table.columns)]
        notes.append(
            f"Our average is over {_range(average)} of the seven NLU tasks "
            f"({', '.join(TASK_LABELS[t] for t in there)}); the paper's is over all seven."
        )
    if left_out:
        names = ", ".join(f"{column.label} {column.quantity.removesuffix(', %')}" for column in left_out)
        notes.append(f"Columns left out, as no run of {model} was evaluated on them: {names}.")
    notes += [note for note in (limits_note(results, model), throughput_note(results, model)) if note]
    if any(cell.after_divergence for cell in cells):
        notes.append("† training of this model (of one of its seeds) diverged; evaluated as it was left.")
    return notes


def _range(numbers: list[int | None]) -> str:
    known = sorted({number for number in numbers if number is not None})
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _cell_gaps(results: Results, model: str, table: Table) -> list[str]:
    """Evaluations that this table lacks although their run is there, rows that are only the paper's, baselines."""
    own = results.gaps[results.gaps["model"] == model]
    explained = set(zip(own["variant"], own["layout"], strict=True))
    grid = set(zip(results.runs["model"], results.runs["variant"], results.runs["layout"], strict=True))
    lines: list[str] = []
    absent: list[str] = []
    for row in table.rows:
        if row.family is None or (row.variant, row.layout) in explained:
            continue
        name = " ".join(part for part in (row.variant, row.label) if part)
        if (model, row.variant, row.layout) not in grid:
            absent.append(name)
            continue
        without = [c for c in table.columns if row.ours[c.key].status == "missing"]
        if without:
            what = "in any column" if len(without) == len(table.columns) else ", ".join(c.label for c in without)
            lines.append(f"{name}: not evaluated ({what})")
    if absent:
        lines.append(f"not in this grid, so only the paper's values are shown: {', '.join(absent)}")
    return lines + baseline_gaps(results)


def families_of(table: Table) -> list[tuple[Family | None, list[Row]]]:
    """The rows in groups: baselines, then the families in the paper's order, a user's own last."""
    groups: list[tuple[Family | None, list[Row]]] = []
    for family in (None, *FAMILIES, OWN):
        rows = [row for row in table.rows if row.family == family]
        if rows:
            groups.append((family, rows))
    return groups
