"""`figure_costs`: measured costs of every variant over the length, a row of panels a batch."""

from __future__ import annotations

from typing import Any

from deconattn.report import style
from deconattn.report.cost_tables import Costs
from deconattn.report.draw import Drawing
from deconattn.report.names import colour, marker
from deconattn.report.notes import gap_line
from deconattn.report.results import Results

PANELS = {
    "flops": "prefill, MFLOPs a token",
    "peak": "training, peak MB",
    "training_us": "training, µs a token",
    "decode_ms": "decoding, ms a token",
}


def figure_costs(results: Results, options: dict[str, Any]) -> Drawing:
    """`figure_costs` for `options["model"]`; sizes that were not measured are left out and named at the foot."""
    costs = Costs(results.folder, options["model"])
    if costs.rows.empty:
        return Drawing(style.blank(costs.model, [gap_line(costs.gaps)]), [], costs.gaps)
    foot = [
        f"One layer's mixer, {costs.shape}, float32, on {costs.hardware}. FLOPs counted by FlopCounterMode; peak of forward and "
        "backward above weights and inputs; medians. A decoding step gives every row of the batch one token.",
        gap_line(costs.gaps),
    ]
    numbers = costs.rows.astype({"counted_prefill_flops": float, "peak_bytes": float, "length": float})
    values = numbers.assign(
        flops=numbers["counted_prefill_flops"] / (numbers["batch"] * numbers["length"]) / 1e6,
        peak=numbers["peak_bytes"] / 1e6,
        training_us=numbers["training_ms"] * 1e3,
    )
    lengths, batches = (sorted(values[name].unique()) for name in ("length", "batch"))
    figure = style.sheet(style.DOUBLE_COLUMN, 0.5 + 1.75 * len(batches), foot)
    style.legend(figure, style.dots(costs.variants))
    grid = figure.subplots(len(batches), len(PANELS), squeeze=False, sharex=True, sharey="col")
    for column, (name, label) in zip(grid.T, PANELS.items(), strict=True):
        for axes, batch in zip(column, batches, strict=True):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_title(label, fontsize=style.SMALL)
            axes.grid(True, axis="y")
            axes.tick_params(labelsize=style.SMALL, labelleft=True, labelbottom=True)
            own = values[values["batch"] == batch].dropna(subset=[name])
            if own.empty:
                style.empty(axes, "not measured")
                continue
            for variant in costs.variants:
                line = own[own["variant"] == variant].sort_values("length")
                axes.plot(line["length"], line[name], color=colour(variant), marker=marker(variant), linewidth=0.9,
                          markersize=3.4, markeredgewidth=0)  # fmt: skip
        column[-1].set_xlabel("length, tokens", labelpad=1.5)
        known = values.loc[values[name] > 0, name]
        if not known.empty:
            low, high = known.min() / 1.3, known.max() * 1.3
            style.set_ticks(column[0].yaxis, style.log_ticks(low, high))
            column[0].set_ylim(low, high)
    grid[0, 0].set_xticks([], minor=True)
    style.set_ticks(grid[0, 0].xaxis, lengths[:: 1 if len(lengths) <= 4 else 2])
    for axes, batch in zip(grid[:, 0], batches, strict=True):
        axes.set_ylabel(f"B = {batch}", fontweight="bold")
    return Drawing(figure, [], costs.gaps)
