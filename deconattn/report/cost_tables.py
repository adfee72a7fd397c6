"""Tables 5 to 8: the costs of every variant, formula beside count beside what the paper prints, and why they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deconattn.report.cost_formulas import BEYOND_SWITCH, GROWTH, OUR_GROWTH, OURS, PRINTED, PRINTED_GROWTH, SYMBOLS
from deconattn.report.cost_results import CostResults
from deconattn.report.names import COSTS, Column, family_of
from deconattn.report.published import PAPER
from deconattn.report.results import MISSING, Cell
from deconattn.report.tables import Row, Table

MOST_LENGTHS = 4
"""Lengths that a table shows of each batch; all are in the Parquet and in the figure."""


@dataclass(frozen=True)
class Line:
    """One line of a variant: a column of the measurements, what it is called, and whether it is the paper's."""

    column: str
    label: str
    published: bool = False


@dataclass(frozen=True)
class Agreement:
    """Two columns that should hold the same numbers, and what a note calls them."""

    formula: str
    found: str
    words: str


def build_costs(
    results: CostResults,
    exhibit: str,
    title: str,
    model: str,
    unit: str,
    lines: Sequence[Line],
    agreements: Sequence[Agreement],
    quantities: Sequence[str],
) -> Table:
    """A table of `lines` for every variant, at the batches and some of the lengths that were measured.

    Its notes say whether formulas and counts agree everywhere, and why `quantities` are not what the paper prints.
    """
    rows = results.of(model)
    columns = _columns(rows, unit)
    table = _empty(results, exhibit, title, model, columns)
    if not columns:
        return table
    lines_of = {line.column: line.label for line in lines}
    for variant in results.variants(model):
        own = rows[rows["variant"] == variant]
        for line in lines:
            if line.published and variant not in PRINTED:
                continue
            cells = {column.key: _cell(own, line.column, column) for column in columns}
            label = _label(line, variant)
            ours, published = ({}, cells) if line.published else (cells, {})
            table.rows.append(Row(family_of(variant), variant, "", line.column, label, ours, published))
    table.notes = [
        *(text for agreement in agreements if (text := _agreement(rows, agreement))),
        *(difference_notes(results, model, quantities) if any(line.published for line in lines) else []),
        *(f"approximate beyond N tokens, {lines_of[c]}: {f}." for c, f in BEYOND_SWITCH.items() if c in lines_of),
        f"In the formulas: {SYMBOLS}",
    ]
    return table


def build_growth(results: CostResults, exhibit: str, title: str, model: str) -> Table:
    """Table 5: how each cost grows, ours above the printed one; words alone, no numbers."""
    heads = {
        "prefill": ("Prefill", "FLOPs"),
        "decode": ("Decoding", "FLOPs a token"),
        "activations": ("Activations", "held for backward"),
        "cache": ("Cache", "held for decoding"),
    }
    columns = [Column(COSTS, name, *heads[name]) for name in GROWTH]
    table = _empty(results, exhibit, title, model, columns if results.variants(model) else [])
    table.row_head = ""
    for variant in results.variants(model):
        ours = OUR_GROWTH.get(variant, (None,) * len(columns))
        row = {column.key: _order(text) for column, text in zip(columns, ours, strict=True)}
        paper = PRINTED_GROWTH.get(variant)
        printed = {c.key: _order(text) for c, text in zip(columns, paper, strict=True)} if paper else {}
        table.rows.append(Row(family_of(variant), variant, "", "growth", "", row, printed))
    table.notes = [
        "Matrix products alone; softmax, RoPE, gates and norms are of lower order. The running sums of nonapproximate are "
        "element-wise, O(BLd).",
        "Activations of ours: in float32 no form of the paper's variants holds scores for backward; kernels and blocks make them "
        "again. In bf16 on a CPU softmax holds its map up to L = 512, O(BhL²), or O(hL²) where one map serves the batch.",
        "The paper's orders follow from its printed formulas; what it prints of activation memory is not known here.",
        "The printed state of approximate, of order d²/h, is too small for a second-order feature map: see Table 8.",
        "A variant of one's own has its costs in Tables 6 to 8; no order is stated for it here. One that states nothing but its "
        "weights, as softplus does, holds its map for backward, O(BhL²).",
        f"In the orders: {SYMBOLS}",
    ]
    return table


def difference_notes(results: CostResults, model: str, quantities: Sequence[str]) -> list[str]:
    """A line for each named difference between printed and ours, with the variants that have it and its size at the largest."""
    rows = results.differences
    rows = rows[(rows["model"] == model) & rows["quantity"].isin(list(quantities))]
    notes = []
    for (name, sentence), group in rows.groupby(["name", "sentence"], sort=False):
        sizes = []
        # What all three counts of a prefill have in common is said of the first.
        prefill = [q for q in group["quantity"].unique() if q.startswith("prefill")]
        for quantity, own in group[~group["quantity"].isin(prefill[1:])].groupby("quantity", sort=False):
            largest = own.sort_values(["batch", "length"]).groupby("variant", sort=False).tail(1)
            for amount, same in largest.groupby("amount", sort=False):
                place = f"B = {same['batch'].iloc[0]}, L = {same['length'].iloc[0]:,}"
                what = _QUANTITY[str(quantity)]
                sizes.append(f"{', '.join(same['variant'])}: {amount:+,} {what} at {place}")
        notes.append(f"{str(name).capitalize()}. {sentence} ({'; '.join(sizes)})")
    return notes


_QUANTITY = {
    "prefill_flops_square": "FLOPs of a prefill",
    "prefill_flops_causal": "FLOPs of a prefill, causal",
    "prefill_flops": "FLOPs of a prefill as it runs",
    "decode_flops": "FLOPs of a step",
    "state_bytes": "bytes",
}


def _empty(results: CostResults, exhibit: str, title: str, model: str, columns: list[Column]) -> Table:
    gaps = results.gaps(model)
    if results.of(model).empty:
        return Table(exhibit, f"{title} ({model})", model, [], [], [], gaps=gaps)
    lead = [
        f"ours: one layer's mixer, {results.shape(model)}. Formulas count a multiply-add as 2 FLOPs and matrix products alone; "
        f"what is called measured was measured on {results.hardware(model)}, in float32 where nothing else is said.",
        f"paper: the formulas printed in {PAPER} (Tables 5 to 8), at the same sizes.",
    ]
    return Table(exhibit, f"{title} ({model})", model, columns, [], lead, gaps=gaps, row_head="cost")


def _columns(rows: pd.DataFrame, unit: str) -> list[Column]:
    """A column for each batch and up to `MOST_LENGTHS` of the lengths, evenly chosen, the longest among them."""
    if rows.empty:
        return []
    lengths = sorted(rows["length"].unique())
    chosen = np.unique(np.linspace(len(lengths) - 1, 0, min(MOST_LENGTHS, len(lengths))).round().astype(int))
    return [
        Column(COSTS, f"b{batch}", f"B = {batch}, L = {lengths[at]:,}", unit, context_length=int(lengths[at]))
        for batch in sorted(rows["batch"].unique())
        for at in chosen
    ]


def _cell(own: pd.DataFrame, name: str, column: Column) -> Cell:
    row = own[(own["batch"] == int(column.metric[1:])) & (own["length"] == column.context_length)]
    if row.empty or pd.isna(row[name].iloc[0]):
        return MISSING
    return Cell("ok", float(row[name].iloc[0]), context_length=column.context_length)


def _label(line: Line, variant: str) -> str:
    formula = (PRINTED if line.published else OURS).get(variant, {}).get(line.column)
    if formula and variant == "approximate" and line.column in BEYOND_SWITCH:
        formula += " up to L = N"
    return f"{line.label}: {formula}" if formula else line.label


def _order(text: str | None) -> Cell:
    if text is None:
        return MISSING
    return Cell("ok", text="0" if text == "0" else f"O({text})")


def _agreement(rows: pd.DataFrame, agreement: Agreement) -> str:
    """Whether two columns agree wherever both are known; empty where that is nowhere."""
    known = rows.dropna(subset=[agreement.formula, agreement.found])
    differ = known[known[agreement.formula] != known[agreement.found]]
    if known.empty:
        return ""
    if differ.empty:
        return f"{agreement.words} agree exactly, in all {len(known)} rows of variant, batch and length."
    examples = ", ".join(f"{r['variant']} B = {r['batch']} L = {r['length']:,}" for _, r in differ.head(3).iterrows())
    return f"{agreement.words} differ in {len(differ)} of {len(known)} rows, such as {examples}."


OPTIONS: dict[str, str] = {"model": "the model whose mixers are shown"}
