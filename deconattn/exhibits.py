"""Every table and figure: what it is called, what it says, what it reads, what it can be told, and what draws it.

To add one, write a row here (its name begins with `figure` or `table`) and the function that `draws` names, then run
`python docs/settings.py`, which writes the options into docs/settings.md and config/schema.json. Imports nothing that
computes, because settings and rules are made from this file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deconattn.errors import UserError
from deconattn.exhibit import Exhibit, Options
from deconattn.nearest import not_one_of

ANSWERS, QUALITY, TRAINING = "1 What it says", "2 What the models can do", "3 How they train"
INSIDE, COSTS = "4 What their attention does", "5 What they cost"
BOTH = ("uniform", "even")
THREE = ("uniform", "even", "odd")
NINE = ("even", "odd", "top", "middle", "bottom", "quarter", "first", "last", "bilateral")
MODES = ("full", "skip", "skip_mixer", "reweighted")
"""Ways to evaluate a model: as trained; a hybrid without its relaxed layers, or without the mixers of these; with its weights
of attention re-weighted (`mixers.REWEIGHTED`)."""

_TEXT = Annotated[str, Field(min_length=1)]
_MODEL: Options = {"model": (_TEXT, Field(description="Name from `models`."))}
_MODELS: Options = {"models": (list[_TEXT], Field(min_length=1, description="Names from `models`, smallest first."))}
_VARIANTS: Options = {
    "variants": (
        list[_TEXT] | None,
        Field(None, min_length=1, description="Variants to draw; null: all that the exhibit is about."),
    )
}
_FORMS = Literal["heatmap", "radar"]
_FORM: Options = {
    "form": (_FORMS, Field("heatmap", description="heatmap: layers × indicators; radar: as the paper draws it."))
}
_TEXTS = Literal["wikitext", "heldout"]
_TASK: Options = {
    "task": (_TEXTS, Field("wikitext", description="wikitext: in word perplexity; heldout: in bits per byte."))
}
_PLACES = Literal["beside", "apart", "none"]
_PAPER: Options = {
    "paper": (_PLACES, Field("beside", description="The paper's values: beside ours, after all of ours, or left out.")),
}
_SETTINGS = Literal[
    "peak_learning_rate", "sequences_per_step", "warmup_steps", "beta1", "beta2", "eps", "weight_decay", "gradient_clip"
]

_SCORED = ("runs", "gaps", "evaluation", "baselines")
_SAMPLED = (*_SCORED, "samples")
_ATTENTION = ("runs", "gaps", "attention", "analysis_gaps")
_SCORES = ("runs", "gaps", "scores", "analysis_gaps")
_COSTS = ("costs", "cost_differences")

_INDICATORS = (
    "A row is a layer, the first one at the bottom; a black square marks a layer that keeps standard attention. "
    "Means are also over rows of held-out text. Concentration is the Frobenius norm of the map."
)
_RIDGES = (
    "A ridge is a layer, its marker the median (a square where the layer is standard). Left: all layers replaced; "
    "right: the hybrid, its standard layers in grey."
)
_AS_TABLE1 = "As Table 1, for nonapproximate and rndembqk, uniform and hybrid"

_ROWS = (
    Exhibit(
        "table_findings", "Findings · the claims here", ANSWERS,
        "deconattn.report.findings_table:table_findings", _SAMPLED,
        "**What this grid says of the claims.** They are the paper's or, of a grid of recall, our predictions. Each "
        "holds, fails or cannot be told, of the variant and of these checkpoints; what can be told comes first. A claim "
        "that cannot be told has not failed. Claims and margins were fixed before the grid was evaluated.",
        _MODELS,
    ),
    Exhibit(
        "table1", "Table 1 · all variants", QUALITY, "deconattn.report.tables:table1", _SCORED,
        "**Which part of attention is needed.** Two baselines, standard attention, and the variants grouped by the "
        "property that they relax; each uniform, as a hybrid that keeps standard attention in the even layers, and "
        "as that hybrid with its replaced layers skipped. Columns: zero-shot accuracy on up to seven tasks, their "
        "mean, and how well text is predicted (perplexity or bits per byte, lower is better). The grey lines are "
        "the paper's values (500m models, 15B tokens of SlimPajama).",
        {**_MODEL, **_PAPER},
    ),
    Exhibit(
        "table2", "Table 2 · the largest model", QUALITY, "deconattn.report.tables:table2", _SCORED,
        f"**The variants in a larger model.** {_AS_TABLE1}, at the largest size. The grey lines are "
        "the paper's values (1.7b models, 45B tokens of SlimPajama).",
        {**_MODEL, **_PAPER},
    ),
    Exhibit(
        "table3", "Table 3 · grouped queries", QUALITY, "deconattn.report.tables:table3", _SCORED,
        f"**The variants with grouped queries.** {_AS_TABLE1}, in a model whose heads share keys and values. The "
        "grey lines are the paper's values (500m models, 15B tokens of SlimPajama).",
        {**_MODEL, **_PAPER},
    ),
    Exhibit(
        "table4", "Table 4 · context lengths", QUALITY, "deconattn.report.tables:table4", _SCORED,
        "**How well text is predicted, by context length.** The same models read the same text with contexts of "
        "different lengths; lower is better. In mlp, uniform, no token sees another. The grey lines are the paper's "
        "values (500m models, word perplexity of WikiText).",
        {**_MODEL, **_TASK, **_PAPER},
    ),
    Exhibit(
        "table5", "Table 5 · how costs grow", COSTS, "deconattn.report.cost_tables:table5", _COSTS,
        "**How costs grow.** For every variant, of one layer's mixer: FLOPs of a prefill, FLOPs of one more token, "
        "and what decoding keeps of the past. The orders of the formulas that the paper prints stand below. No "
        "training is needed for it.",
        _MODEL, layouts=(),
    ),
    Exhibit(
        "table6", "Table 6 · FLOPs", COSTS, "deconattn.report.cost_tables:table6", _COSTS,
        "**FLOPs of one layer's mixer.** A multiply-add is 2 FLOPs; matrix products alone are counted. A prefill "
        "is given with all L² pairs of positions, and with the L(L + 1)/2 that a causal model needs where that "
        "differs. Variants with equal costs share a line. The grey lines are the formulas that the paper prints; "
        "each difference is named and sized under the table.",
        _MODEL, layouts=(),
    ),
    Exhibit(
        "table7", "Table 7 · memory in training", COSTS, "deconattn.report.cost_tables:table7", _COSTS,
        "**Memory of one layer's mixer in training, measured.** Activations are what autograd holds between "
        "forward and backward; the peak is the most that forward and backward hold above weights and inputs, with "
        "gradients and temporaries.",
        _MODEL, layouts=(),
    ),
    Exhibit(
        "table8", "Table 8 · inference cache", COSTS, "deconattn.report.cost_tables:table8", _COSTS,
        "**What decoding keeps of the past, in one layer.** Bytes after L tokens of B sequences. A side stream's "
        "queries and keys are counted once, for however many sequences. The grey lines are the formulas that the "
        "paper prints, at 2 bytes a number; each difference is named and sized under the table.",
        _MODEL, layouts=(),
    ),
    Exhibit(
        "figure1", "Figure 1 · attention indicators", INSIDE, "deconattn.report.indicators:figure1", _ATTENTION,
        "**What attention looks like, layer by layer.** Indicators of the attention map of the standard model and "
        f"of every variant that replaces all layers. {_INDICATORS}",
        {**_MODEL, **_VARIANTS, **_FORM}, without=("mlp",),
    ),
    Exhibit(
        "figure2", "Figure 2 · scores, rndembqk", INSIDE, "deconattn.report.ridges:figure2", _SCORES,
        "**Scores before the softmax, rndembqk.** The scores of a replaced layer are those of the side stream, the "
        f"same for every input. {_RIDGES}",
        _MODEL, variants=("rndembqk",),
    ),
    Exhibit(
        "figure3", "Figure 3 · nine layouts", QUALITY, "deconattn.report.dots:figure3", _SAMPLED,
        "**Which layers keep standard attention.** Nine layouts of some variants. Left: how well text is predicted "
        "(lower is better); right: mean accuracy on the NLU tasks (higher is better); beside each, the difference to "
        "standard attention with its bounds.",
        {**_MODEL, **_VARIANTS}, layouts=NINE,
    ),
    Exhibit(
        "figure4", "Figure 4 · comparison", QUALITY, "deconattn.report.dots:figure4", _SAMPLED,
        "**All models compared.** Filled: uniform; open: hybrid (even); a thin line joins the two. Dotted: the "
        "standard model. Dashed: random guess. Left: how well text is predicted, lower is better; a perplexity is "
        "on a logarithmic axis, and an arrow marks a value beyond it. Beside it, the difference in log-perplexity to the "
        "standard model, with its bounds; at the right, that of the mean accuracy over the NLU tasks. The lowest row of "
        "panels holds the paper's 500m models on WikiText. A column of one quantity has the same axis in all rows.",
        {
            **_MODELS,
            "tasks": (list[str], Field(["arc_easy", "sciq"], min_length=1, description="Tasks beside the text.")),
            "published": (bool, Field(True, description="Whether the paper's 500m models stand beneath.")),
        },
    ),
    Exhibit(
        "figure5", "Figure 5 · training loss", TRAINING, "deconattn.report.curves:figure5", ("runs", "gaps", "training"),
        "**Training loss.** Above: uniform models (solid); below: hybrids (dashed); the standard model in both. "
        "Beneath each, the difference to the standard model of the same seed, which reads the same batches. The axis "
        "begins at 1 % of training.",
        {
            **_MODELS,
            "x_scale": (Literal["log", "linear"], Field("log", description="Axis of tokens.")),
            "smoothing": (float, Field(0.02, description="Width of the running mean, as a share of the curve.")),
            "start": (float, Field(0.01, description="Share of training at which the drawn range begins.")),
        },
    ),
    Exhibit(
        "figure6", "Figure 6 · scores, nonapproximate", INSIDE, "deconattn.report.ridges:figure6", _SCORES,
        f"**Scores before the softmax, nonapproximate.** A replaced layer has one score a key. {_RIDGES}",
        _MODEL, variants=("nonapproximate",),
    ),
    Exhibit(
        "figure7", "Figure 7 · indicators, mathematical form", INSIDE, "deconattn.report.indicators:figure7", _ATTENTION,
        f"**Indicators of attention, mathematical form: uniform beside hybrid.** {_INDICATORS}",
        {**_MODEL, **_VARIANTS, **_FORM}, variants=("standard", "approximate", "nonapproximate"),
    ),
    Exhibit(
        "figure8", "Figure 8 · indicators, queries and keys", INSIDE, "deconattn.report.indicators:figure8", _ATTENTION,
        f"**Indicators of attention, what queries and keys read: uniform beside hybrid.** {_INDICATORS}",
        {**_MODEL, **_VARIANTS, **_FORM}, without=("mlp", "approximate", "nonapproximate"),
    ),
    Exhibit(
        "figure_sweep", "Figure · swept settings", TRAINING, "deconattn.report.sweep_figure:figure_sweep",
        ("runs", "gaps"),
        "**Held-out loss against a swept setting.** Left: uniform models (solid); right: hybrids (dashed); the "
        "standard model in both. This figure is not in the paper.",
        {
            **_MODEL,
            "setting": (_SETTINGS, Field("peak_learning_rate", description="Setting on the axis.")),
        },
    ),
    Exhibit(
        "figure_recall", "Figure · associative recall", QUALITY, "deconattn.report.recall_figure:figure_recall",
        ("runs", "gaps", "evaluation", "baselines", "training"),
        "**Associative recall.** Which variants, in which layouts, look up a value by its key. Accuracy of the answers "
        "to queries on held-out sequences, for each number of key–value pairs; loss of the answers in training; "
        "accuracy over the distance to the pair, and over the number of pairs. Dashed: a guess of all values; "
        "dash-dotted: the value of one of the sequence's pairs. This figure is not in the paper.",
        _MODEL, layouts=THREE,
    ),
    Exhibit(
        "figure_lengths", "Figure · context lengths", QUALITY, "deconattn.report.lengths_figure:figure_lengths",
        ("runs", "gaps", "evaluation"),
        "**How well text is predicted, by context length.** Left: uniform models (solid); right: hybrids (dashed); the "
        "standard model in both. Shaded: lengths beyond that of training. Dotted: softplus with its attention re-weighted "
        "at evaluation alone. This figure is not in the paper.",
        {**_MODEL, **_TASK},
    ),
    Exhibit(
        "figure_costs", "Figure · measured costs over length", COSTS, "deconattn.report.cost_figure:figure_costs", _COSTS,
        "**Measured costs over the length.** A row of panels is a batch size. Times are those of this project's "
        "code on the device that is named at the foot, and no property of the mechanism. This figure is not in the "
        "paper.",
        _MODEL, layouts=(),
    ),
    Exhibit(
        "figure_pareto", "Figure · quality against cost", COSTS, "deconattn.report.pareto_figure:figure_pareto",
        ("runs", "gaps", "evaluation", "run_costs"),
        "**What quality costs.** Left: against the FLOPs of training; right: against what decoding keeps of a sequence as "
        "long as in training. Filled: uniform; open: hybrid (even); larger markers are larger models. The line is the "
        "Pareto front. This figure is not in the paper.",
        _MODELS,
    ),
)  # fmt: skip

EXHIBITS: dict[str, Exhibit] = {row.name: row for row in _ROWS}
PAGE_CAPTION = (
    "**All results on one page.** Findings, every table and figure with its files and where it comes from (runs, gaps, the "
    "SHA-256 of the tables it was drawn from, commit, versions), a table of all runs to sort and filter, and the curves of "
    "those chosen there. It works offline."
)


def find(name: str) -> Exhibit:
    """The exhibit of this name; `UserError` with the nearest one if there is none."""
    if name not in EXHIBITS:
        raise UserError(not_one_of(name, "exhibit that can be drawn", EXHIBITS))
    return EXHIBITS[name]
