"""Tables 1 to 4: models × columns, ours beside the paper's: which rows, which columns, which values.

How they are printed is in `print_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from deconattn.exhibits import BOTH, EXHIBITS
from deconattn.report import schema
from deconattn.report.lengths import gaps, values
from deconattn.report.names import (
    BASELINES,
    COLUMNS,
    HELDOUT,
    NLU_TASKS,
    PAPER,
    WIKITEXT,
    Column,
    Family,
    column_of,
    condition_label,
    family_of,
    in_order,
)
from deconattn.report.notes import caveats, limits_note, run_gaps, spread_note, throughput_note
from deconattn.report.published import TABLE_DESCRIPTIONS, is_of, load_published, published_cells
from deconattn.report.results import Cell, Results

SKIPS = ("full", "skip", "skip_mixer")
"""Modes of evaluation that have rows; of the others `figure_lengths` tells."""


@dataclass(frozen=True)
class Row:
    """A model evaluated in one mode, or a baseline (which has no family): the cells of one source by column key.

    source: `ours` or `published`. label: what is printed beside the variant.
    """

    family: Family | None
    variant: str
    layout: str
    mode: str
    source: str
    cells: dict[str, Cell]
    label: str = ""


@dataclass
class Table:
    """An exhibit ready to be printed; `lead` says what ours and the paper's values are, notes follow the values.

    `row_head` stands over the labels of the rows; `joined`: variants whose rows are all equal share them in print.
    `apart`: the paper's rows come after all of ours and are floats of their own.
    """

    exhibit: str
    model: str
    columns: list[Column]
    rows: list[Row]
    lead: dict[str, str]
    notes: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    row_head: str = "layout, mode"
    joined: bool = False
    apart: bool = False

    @property
    def number(self) -> str:
        return self.exhibit.removeprefix("table")

    @property
    def heading(self) -> str:
        """What it is about, and the model."""
        return f"{EXHIBITS[self.exhibit].caption.split('**')[1].rstrip('.')} ({self.model})"

    @property
    def explanation(self) -> str:
        """The caption behind its heading."""
        return EXHIBITS[self.exhibit].caption.split("**")[2].strip()

    @property
    def has_published(self) -> bool:
        return any(row.source == "published" for row in self.rows)

    @property
    def own_cells(self) -> list[Cell]:
        return [cell for row in self.rows if row.source == "ours" for cell in row.cells.values()]

    def tidy(self) -> pd.DataFrame:
        """A row a cell, columns as `schema.CELLS`; accuracies are fractions."""
        out = [
            {
                "exhibit": self.exhibit, "order": order, "source": row.source,
                "model": self.model if row.source == "ours" else PAPER,
                "family": row.family.key if row.family else "baseline",
                "variant": row.variant, "layout": row.layout, "mode": row.mode,
                "column": column.key, "task": column.task, "metric": column.metric,
                **asdict(cell), "context_length": cell.context_length or column.context_length,
                "seeds": cell.seeds or None, "seeds_planned": cell.seeds_planned or None,
            }
            for order, row in enumerate(self.rows)
            for column in self.columns
            if (cell := row.cells[column.key])
        ]  # fmt: skip
        return pd.DataFrame(out, columns=schema.CELLS.names)


def table1(results: Results, options: dict[str, Any]) -> Table:
    """The variants, uniform, hybrid and with layers skipped, on seven NLU tasks, WikiText, LAMBADA and other tasks."""
    return _build(results, "table1", options, _columns(results))


def table2(results: Results, options: dict[str, Any]) -> Table:
    """The same of the largest model."""
    return _build(results, "table2", options, _columns(results))


def table3(results: Results, options: dict[str, Any]) -> Table:
    """The same with grouped queries."""
    return _build(results, "table3", options, _columns(results))


def table4(results: Results, options: dict[str, Any]) -> Table:
    """How well a text is predicted, a column for every context length that we or the paper have."""
    text = HELDOUT if options["task"] == HELDOUT.task else WIKITEXT
    own, paper = results.scores[results.scores["model"] == options["model"]], load_published("table4")
    lengths = {n for rows in (own, paper) for n in rows.loc[is_of(rows, text), "context_length"]}
    columns = [
        replace(text, label=f"{length:,} tokens", quantity=f"{text.label} {text.quantity}", context_length=int(length))
        for length in sorted(lengths)
    ]
    table = _build(results, "table4", options, columns, modes=("full",))
    points = values(results, table.model, text)
    table.gaps += gaps(results, table.model, points[points["mode"] == "full"])
    return table


def _columns(results: Results) -> list[Column]:
    """The paper's columns, and of each other task that is evaluated the first metric that its definition names."""
    first = results.evaluation.drop_duplicates("task")[["task", "metric"]]
    known = {column.task for column in COLUMNS}
    return [*COLUMNS, *(column_of(task, metric) for task, metric in first.itertuples(index=False) if task not in known)]


def _build(
    results: Results, exhibit: str, options: dict[str, Any], candidates: Sequence[Column], modes: Sequence[str] = SKIPS
) -> Table:
    """A table of the baselines, the standard model and every variant × layout × mode that we or the paper have.

    A column for which we have nothing is left out and named in the notes; if we have nothing at all the
    paper's columns are shown alone.
    """
    model, paper = options["model"], options["paper"]
    published = load_published(exhibit)
    published = published.iloc[:0] if paper == "none" else published
    ours = [column for column in candidates if results.has(model, column)]
    columns = ours or [column for column in candidates if is_of(published, column).any()]
    rows = _baseline_rows(results, published, columns) if ours else []
    rows += _model_rows(results, model, published, columns, modes)
    rows = sorted(rows, key=lambda row: row.source) if paper == "apart" else rows
    table = Table(exhibit, model, columns, rows, {}, runs=results.shown([model], BOTH), apart=paper == "apart")
    tasks = [column.task for column in columns if column.task in NLU_TASKS]
    table.lead = {
        "ours": " ".join(caveats(results, model, BOTH, tasks)),
        "paper": f"the values printed in {PAPER}, Table {table.number} ({TABLE_DESCRIPTIONS[exhibit]}).",
    }
    if not table.has_published:
        del table.lead["paper"]
    table.notes = _notes(results, table, [column for column in candidates if column not in columns])
    in_grid = {(row.variant, row.layout, row.mode) for row in rows if row.source == "ours"}
    alone = [row for row in rows if row.family and (row.variant, row.layout, row.mode) not in in_grid]
    table.gaps = run_gaps(results, [model], [row.variant for row in rows])
    if names := ", ".join(f"{row.variant} {row.label}".strip() for row in alone):
        table.gaps.append(f"not in this grid, so only the paper's values are shown: {names}")
    table.gaps += results.gaps.loc[results.gaps["stage"] == "baselines", "reason"].tolist()
    return table


def _baseline_rows(results: Results, published: pd.DataFrame, columns: list[Column]) -> list[Row]:
    rows = []
    # A baseline's average is over the tasks that the models are scored on, so that the two can be compared.
    scored = [column.task for column in columns if column.task in NLU_TASKS]
    for name in BASELINES:
        ours = {column.key: results.baseline(name, column, scored) for column in columns}
        if any(cell.status == "ok" for cell in ours.values()):
            rows.append(Row(None, name, "", "full", "ours", ours))
        if paper := published_cells(published, name, "uniform", "full", columns):
            rows.append(Row(None, name, "", "full", "published", paper))
    return rows


def _model_rows(
    results: Results, model: str, published: pd.DataFrame, columns: list[Column], modes: Sequence[str]
) -> list[Row]:
    runs = results.runs[results.runs["model"] == model]
    grid = set(zip(runs["variant"], runs["layout"], strict=True))
    evaluated = {"full", *results.scores.loc[results.scores["model"] == model, "mode"]}
    paper = set(zip(published["variant"], published["layout"], published["mode"], strict=True))
    rows = []
    for variant in in_order({v for v, _ in grid} | {v for v, _, _ in paper} - set(BASELINES)):
        for layout in ["uniform"] if variant == "standard" else BOTH:
            for mode in ["full"] if layout == "uniform" else modes:
                place = (variant, layout, mode)
                label = "" if variant == "standard" else condition_label(layout, mode)
                # Ours has a line only where the configuration asks for it: a dash there means a gap.
                if (variant, layout) in grid and (mode in evaluated or place in paper):
                    ours = {column.key: results.cell(model, *place, column) for column in columns}
                    rows.append(Row(family_of(variant), *place, "ours", ours, label))
                if place in paper:
                    printed = published_cells(published, *place, columns)
                    rows.append(Row(family_of(variant), *place, "published", printed, label))
    return rows


def _notes(results: Results, table: Table, left_out: list[Column]) -> list[str]:
    notes = [spread_note(table.own_cells)]
    seeds = max((cell.seeds_planned for cell in table.own_cells), default=0)
    if seeds > 1:
        notes.append(f"Each value of ours is the mean over {seeds} seeds, or over n where n is given.")
    if any(cell.stderr is not None for row in table.rows if row.source == "published" for cell in row.cells.values()):
        notes.append("The paper's ± is the standard error over test items.")
    if counts := sorted({cell.tasks for cell in table.own_cells if cell.tasks not in (None, len(NLU_TASKS))}):
        there = ", ".join(column.label for column in table.columns if column.task in NLU_TASKS)
        number = " or ".join(map(str, counts))
        notes.append(f"Our average is over {number} of the seven NLU tasks ({there}); the paper's is over all seven.")
    if left_out:
        names = ", ".join(f"{column.label} {column.quantity.removesuffix(', %')}" for column in left_out)
        notes.append(f"Columns left out, as no run of {table.model} was evaluated on them: {names}.")
    notes += [limits_note(results, table.model), throughput_note(results, table.model)]
    if any(cell.after_divergence for cell in table.own_cells):
        notes.append("† training of this model (of one of its seeds) diverged; evaluated as it was left.")
    return [note for note in notes if note]
