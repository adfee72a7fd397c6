"""What a report of this size can and cannot show, in plain words worked out from the results themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deconattn.report.names import NLU_TASKS, count_label, run_label
from deconattn.report.results import Results

PAPER_PARAMETERS = 500e6
PAPER_TOKENS = 15e9


def size_statement(results: Results, model: str, layouts: Sequence[str]) -> str:
    """One sentence: how many models of which size, trained on how much, with how many seeds."""
    runs = _runs(results, model, layouts)
    runs = runs[runs["status"] != "missing"]
    trained = runs[["variant", "layout"]].drop_duplicates()
    parameters, tokens, seeds = results.parameters(model), results.tokens(model), results.seeds(model)
    size = "" if parameters is None else f" of {count_label(parameters)} parameters"
    budget = "" if tokens is None else f", each trained on {count_label(tokens)} tokens"
    noun = "model" if len(trained) == 1 else "models"
    return f"{len(trained)} {noun}{size} ({model}){budget}, with {seeds} seed{'s' if seeds > 1 else ''} each."


def caveats(results: Results, model: str, layouts: Sequence[str] = ("uniform", "even")) -> list[str]:
    """Sentences on the size, on the one order that the losses support, and on whether accuracies leave chance."""
    sentences = [size_statement(results, model, layouts)]
    parameters, tokens = results.parameters(model), results.tokens(model)
    if parameters and tokens and (parameters < PAPER_PARAMETERS / 10 or tokens < PAPER_TOKENS / 10):
        sentences.append(
            f"This is {_times(PAPER_PARAMETERS / parameters)} fewer parameters and "
            f"{_times(PAPER_TOKENS / tokens)} fewer training tokens than the paper's 500m models: "
            "it shows that the experiment runs from text to table, and does not test the paper's numbers."
        )
    sentences += [text for text in (_separation(results, model, layouts), _chance(results, model, layouts)) if text]
    return sentences


def _runs(results: Results, model: str, layouts: Sequence[str]) -> pd.DataFrame:
    runs = results.runs[results.runs["model"] == model]
    return runs[runs["layout"].isin(list(layouts)) | (runs["variant"] == "standard")]


def _times(ratio: float) -> str:
    digits = 10 ** max(0, int(np.log10(max(ratio, 1))) - 1)
    return f"{round(ratio / digits) * digits:,.0f} times"


def _separation(results: Results, model: str, layouts: Sequence[str]) -> str | None:
    """Which model stands apart: the widest gap between neighbours by loss, if it is wider than all the rest spread."""
    runs = _runs(results, model, layouts)
    runs = runs[runs["status"] == "finished"]
    name = "final_heldout_loss" if runs["final_heldout_loss"].notna().all() else "final_train_loss"
    what = "held-out" if name == "final_heldout_loss" else "training"
    losses = runs.groupby(["variant", "layout"])[name].mean().dropna().sort_values()
    if len(losses) < 4:
        return None
    worst, rest = losses.iloc[-1], losses.iloc[:-1]
    one_seed = results.seeds(model) == 1
    tail = (
        "with one seed the noise between seeds is unknown, so the order among them cannot be read from this run"
        if one_seed
        else "see the spread over seeds before reading an order among them"
    )
    if worst - rest.iloc[-1] > rest.iloc[-1] - rest.iloc[0]:
        label = run_label(*losses.index[-1])
        return (
            f"By final {what} loss {label} stands apart as the worst ({worst:.2f} nats a token; the other "
            f"{len(rest)} lie between {rest.iloc[0]:.2f} and {rest.iloc[-1]:.2f}); {tail}."
        )
    return f"Final {what} losses lie between {losses.iloc[0]:.2f} and {worst:.2f} nats a token; {tail}."


def _chance(results: Results, model: str, layouts: Sequence[str]) -> str | None:
    """How many accuracies differ from random guessing by more than two standard errors."""
    baselines = results.baselines
    baselines = baselines[(baselines["baseline"] == "random_guess") & (baselines["metric"] == "acc")]
    guess = baselines.set_index("task")["value"]
    rows = results.evaluation
    rows = rows[rows["run"].isin(_runs(results, model, layouts)["run"])]
    rows = rows[(rows["mode"] == "full") & (rows["metric"] == "acc") & rows["task"].isin(NLU_TASKS)]
    rows = rows.assign(guess=rows["task"].map(guess)).dropna(subset=["value", "stderr", "guess"])
    rows = rows[rows["stderr"] > 0]
    if rows.empty:
        return None
    distance = (rows["value"] - rows["guess"]) / rows["stderr"]
    above, below = int((distance > 2).sum()), int((distance < -2).sum())
    return (
        f"Of {len(rows)} NLU accuracies of trained models (skips aside), {above} lie more than two standard errors "
        f"above random guessing and {below} as far below it" + _verdict(above, below, len(rows))
    )


def _verdict(above: int, below: int, total: int) -> str:
    if above + below <= 0.1 * total:
        return "; about one in twenty would by luck alone, so at this size they are at chance."
    if above <= 0.5 * total:
        return "; most are at or near chance, so differences between the models' averages carry little."
    return "."


def limits_note(results: Results, model: str) -> str | None:
    """Which tasks were scored on a part of their items, if any."""
    rows = results.evaluation
    rows = rows[(rows["model"] == model) & rows["limit"].notna()]
    if rows.empty:
        return None
    parts = rows.groupby("task")["limit"].max()
    return "Scored on a part of the items only: " + ", ".join(f"{t} ({_int(n)} items)" for t, n in parts.items()) + "."


def _int(value: object) -> str:
    return "all" if pd.isna(value) else f"{int(value):,}"  # type: ignore[call-overload]
