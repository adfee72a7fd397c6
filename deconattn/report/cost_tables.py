"""Tables 5 to 8: the costs of every variant beside what the paper prints, and why they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deconattn.analysis.schema import COSTS as COST_COLUMNS
from deconattn.analysis.schema import DIFFERENCES
from deconattn.report import schema
from deconattn.report.cost_formulas import BEYOND_SWITCH, OUR_GROWTH, OURS, PRINTED, PRINTED_GROWTH, SYMBOLS
from deconattn.report.names import COSTS, PAPER, Column, family_of, in_order
from deconattn.report.results import MISSING, Cell, Results
from deconattn.report.tables import Row, Table

MOST_LENGTHS = 4
"""Lengths that a table shows of each batch; all are in the Parquet and in the figure."""


class Costs:
    """What `collect_costs` wrote, of one model; nothing of trained runs. `UserError` for a table that is absent or broken."""

    def __init__(self, folder: Path, model: str) -> None:
        self.model = model
        costs = schema.read_table(folder / "costs.parquet", COST_COLUMNS)
        differences = schema.read_table(folder / "cost_differences.parquet", DIFFERENCES)
        self.rows = costs[costs["model"] == model]
        self.differences = differences[differences["model"] == model]
        self.variants = in_order(self.rows["variant"])
        if self.rows.empty:
            self.gaps = [f"{model}: not measured yet"]
            return
        left_out = self.rows.dropna(subset=["reason"])
        self.gaps = [
            f"{place}: not measured, {why}" for place, why in zip(_places(left_out), left_out["reason"], strict=True)
        ]
        row = self.rows.iloc[0]
        threads = "" if pd.isna(row["threads"]) else f", {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        self.hardware = f"{row['device']}{threads}, torch {row['torch']}"
        grouped = "" if row["heads"] == row["key_value_heads"] else f", {row['key_value_heads']} key-value heads"
        self.shape = f"{model}: d = {row['hidden_size']:,}, {row['heads']} heads{grouped}"


def _places(rows: pd.DataFrame) -> list[str]:
    return [f"{row.variant} B = {row.batch} L = {row.length:,}" for row in rows.itertuples()]


def table5(results: Results, options: dict[str, Any]) -> Table:
    """How each cost grows, ours above the printed one; words alone, no numbers."""
    costs = Costs(results.folder, options["model"])
    heads = [
        ("prefill", "Prefill", "FLOPs"),
        ("decode", "Decoding", "FLOPs a token"),
        ("cache", "Cache", "held for decoding"),
    ]
    table = _table(costs, "table5", [Column(COSTS, *head) for head in heads] if costs.variants else [])
    table.row_head = ""
    for variant in costs.variants:
        for source, growth in (("ours", OUR_GROWTH), ("published", PRINTED_GROWTH)):
            texts = [text if text == "0" else f"O({text})" for text in growth.get(variant, ())]
            cells = [Cell("ok", text=text) for text in texts] or [MISSING] * len(heads)
            if texts or source == "ours":
                own = {column.key: cell for column, cell in zip(table.columns, cells, strict=True)}
                table.rows.append(Row(family_of(variant), variant, "", "growth", source, own))
    table.notes = [
        "Matrix products alone; softmax, RoPE, gates and norms are of lower order. The running sums of nonapproximate are "
        "element-wise, O(BLd).",
        "The paper's orders follow from its printed formulas. The printed state of approximate, of order d²/h, is too small "
        "for a second-order feature map: see Table 8. What training holds is measured: see Table 7.",
        "A variant of one's own has its costs in Tables 6 to 8; no order is stated for it here.",
        f"In the orders: {SYMBOLS}",
    ]
    return table


def table6(results: Results, options: dict[str, Any]) -> Table:
    """FLOPs of every variant, of a prefill and of decoding one more token."""
    costs = Costs(results.folder, options["model"])
    lines = {
        "prefill_flops_square": "prefill, all pairs",
        "prefill_flops_causal": "prefill, causal",
        "printed_prefill_flops": "prefill",
        "decode_flops": "decoding, a token",
        "printed_decode_flops": "decoding, a token",
    }
    words = {
        "prefill_flops_square": "FLOPs of a prefill",
        "prefill_flops_causal": "FLOPs of a prefill, causal",
        "prefill_flops": "FLOPs of a prefill as it runs",
        "decode_flops": "FLOPs of a decoding step",
    }
    table = _numbers(costs, "table6", "FLOPs", lines)
    counted = {name: f"counted_{name}" for name in ("prefill_flops", "decode_flops")}
    table.notes = _agreement(costs, counted, words, "by FlopCounterMode") + _differences(costs, words) + table.notes
    return table


def table7(results: Results, options: dict[str, Any]) -> Table:
    """Memory of every variant in training, as it was measured."""
    costs = Costs(results.folder, options["model"])
    lines = {"held_activation_bytes": "activations", "peak_bytes": "peak of forward and backward"}
    table = _numbers(costs, "table7", "bytes", lines)
    table.lead.pop("paper", None)
    table.notes = [
        "Parameters, the mixer's inputs and RoPE's tables are not among the activations.",
        "What the paper prints of activation memory is not known here.",
    ]
    return table


def table8(results: Results, options: dict[str, Any]) -> Table:
    """What decoding keeps of the past, for every variant."""
    costs = Costs(results.folder, options["model"])
    lines = {
        "state_bytes_bf16": "bf16",
        "held_state_bytes": "float32, measured",
        "printed_cache_bytes": "2 bytes a number",
    }
    words = {"state_bytes_bf16": "Bytes in bf16", "state_bytes": "Bytes in float32"}
    table = _numbers(costs, "table8", "bytes", lines)
    held = {name: f"held_{name}" for name in words}
    table.notes = (
        _agreement(costs, held, words, "as held") + _differences(costs, {"state_bytes": "bytes"}) + table.notes
    )
    return table


def _numbers(costs: Costs, exhibit: str, unit: str, lines: dict[str, str]) -> Table:
    """A table of `lines` (column of the measurements → label; `printed_…` are the paper's) for every variant.

    A line that repeats one above it of the same variant is left out. A column for each batch and up to `MOST_LENGTHS` of
    the lengths, evenly chosen, the longest among them.
    """
    lengths = np.sort(costs.rows["length"].unique())
    chosen = np.linspace(len(lengths) - 1, 0, min(MOST_LENGTHS, len(lengths))).round().astype(int)
    places = [
        (batch, length) for batch in sorted(costs.rows["batch"].unique()) for length in lengths[np.unique(chosen)]
    ]
    columns = {(b, n): Column(COSTS, f"b{b}", f"B = {b}, L = {n:,}", unit, context_length=int(n)) for b, n in places}
    table = _table(costs, exhibit, list(columns.values()))
    for variant in costs.variants:
        own = costs.rows[costs.rows["variant"] == variant].set_index(["batch", "length"])
        known: list[pd.Series] = []
        for name, label in lines.items():
            values, published = own[name].dropna(), name.startswith("printed_")
            repeated = not published and len(values) and any(values.equals(above) for above in known)
            if repeated or (published and values.empty):
                continue
            known += [] if published else [values]
            cells = {
                column.key: Cell("ok", float(values[place])) if place in values.index else MISSING
                for place, column in columns.items()
            }
            label = _with_formula(label, variant, name)
            source = "published" if published else "ours"
            table.rows.append(Row(family_of(variant), variant, "", name, source, cells, label))
    beyond = [f"approximate beyond N tokens, {lines[c]}: {text}." for c, text in BEYOND_SWITCH.items() if c in lines]
    table.notes = [*beyond, f"In the formulas: {SYMBOLS}"]
    return table


def _with_formula(label: str, variant: str, name: str) -> str:
    formula = {**OURS.get(variant, {}), **PRINTED.get(variant, {})}.get(name)
    until = " up to L = N" if variant == "approximate" and name in BEYOND_SWITCH else ""
    return f"{label}: {formula}{until}" if formula else label


def _table(costs: Costs, exhibit: str, columns: list[Column]) -> Table:
    """A table without rows, and what its values are."""
    lead = {}
    if costs.variants:
        lead = {
            "ours": f"{costs.shape}; what is called measured was measured on {costs.hardware}, in float32 where nothing "
            "else is said.",
            "paper": f"the formulas printed in {PAPER} (Tables 5 to 8), at the same sizes.",
        }
    return Table(exhibit, costs.model, columns, [], lead, gaps=costs.gaps, row_head="cost", joined=True)


def _agreement(costs: Costs, pairs: dict[str, str], words: dict[str, str], check: str) -> list[str]:
    """Whether two columns that should hold the same numbers do, wherever both are known."""
    notes = []
    for formula, found in pairs.items():
        known = costs.rows.dropna(subset=[formula, found])
        differ = _places(known[known[formula] != known[found]])
        how = f"agree exactly, in all {len(known)} rows of variant, batch and length"
        if differ:
            how = f"differ in {len(differ)} of {len(known)} rows, such as {', '.join(differ[:3])}"
        notes += [f"{words[formula]}, by formula and {check}, {how}."] if len(known) else []
    return notes


def _differences(costs: Costs, words: dict[str, str]) -> list[str]:
    """A line for each named difference between printed and ours: the variants that have it, its size at the largest."""
    rows = costs.differences[costs.differences["quantity"].isin(list(words))]
    largest = rows.sort_values(["batch", "length"], kind="stable").drop_duplicates(
        ["name", "sentence", "quantity", "variant"], keep="last"
    )
    # What the counts of a prefill have in common is said of the first.
    largest = largest.drop_duplicates(["name", "sentence", "variant", "amount"])
    notes = []
    for (name, sentence), own in largest.groupby(["name", "sentence"], sort=False):
        sizes = [
            f"{', '.join(in_order(same['variant']))}: {amount:+,} {words[str(quantity)]} at "
            f"B = {same['batch'].iloc[0]}, L = {same['length'].iloc[0]:,}"
            for (quantity, amount), same in own.groupby(["quantity", "amount"], sort=False)
        ]
        notes.append(f"{str(name).capitalize()}. {sentence} ({'; '.join(sizes)})")
    return notes
