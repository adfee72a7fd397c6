"""Table 4: word perplexity at several context lengths (500m, WikiText)."""

from __future__ import annotations

from typing import Any

from deconattn.report.names import TASK_LABELS, Column
from deconattn.report.published import load_published
from deconattn.report.results import Results
from deconattn.report.tables import Table, build

OPTIONS: dict[str, str] = {
    "model": "the model of the table",
    "task": "the text whose word perplexity is shown: wikitext (default) or heldout",
}


def draw(results: Results, options: dict[str, Any]) -> Table:
    """Table 4 for `options["model"]`: a column for every context length that we or the paper have."""
    model, task = options["model"], options.get("task", "wikitext")
    rows = results.evaluation
    rows = rows[(rows["model"] == model) & (rows["task"] == task) & (rows["metric"] == "word_perplexity")]
    published = load_published("table4")
    lengths = {*rows["context_length"], *published.loc[published["task"] == task, "context_length"]}
    columns = [
        Column(task, "word_perplexity", f"{length:,}", "tokens of context", context_length=length)
        for length in sorted(map(int, lengths))
    ]
    title = f"Table 4: word perplexity of {TASK_LABELS.get(task, task)} by context length ({model})"
    return build(results, "table4", title, model, columns, modes=("full",))
