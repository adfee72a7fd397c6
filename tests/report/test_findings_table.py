"""`table_findings` as it is printed: pages and numbers."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deconattn.report import schema
from deconattn.report.claims import UNTOLD
from deconattn.report.draw import draw
from tests.make_results import make_runs, report


def test_the_pages_say_what_was_found(tmp_path: Path) -> None:
    """Of held-out text, where WikiText was not evaluated; what is missing is said and not told."""
    broken: dict[str, Any] = {"missing": [("rndembqk", "uniform")], "diverged": [("nonapproximate", "uniform")]}
    tables = report(tmp_path, make_runs(tmp_path, **broken))
    draw("table_findings", tables, tmp_path / "out", {"models": ["nano"]})
    rows = pd.read_parquet(tmp_path / "out/table_findings.parquet").set_index("claim")
    assert list(rows.columns) == [name for name in schema.FINDINGS.names if name != "claim"]
    samples = (
        pd.read_parquet(tables / "samples.parquet").query("mode == 'full' and task == 'heldout'").astype({"run": str})
    )
    losses = samples.groupby("run")[["nll", "words"]].sum()
    mlp, standard = ((own["nll"] / own["words"]).item() for own in
                     (losses.filter(like=f"nano-{name}-uniform", axis=0) for name in ("mlp", "standard")))  # fmt: skip
    assert rows.loc["mixing", "value"] == pytest.approx(mlp - standard) and rows.loc["mixing", "text"] == "heldout"
    page = html.unescape((tmp_path / "out/table_findings.html").read_text())
    for words in (
        "nano, 0.41M parameters, 1 seed each. Of 18 claims",
        "log-perplexity of Held-out, in nats a word",
        "WikiText was not evaluated here",
        "nonapproximate uniform diverged",
        "rndembqk uniform: not trained yet",
        "(nano: none)",
    ):
        assert words in page, words
    first = pd.read_csv(tmp_path / "out/table_findings.csv")
    assert first["of these checkpoints"].ne(UNTOLD).iloc[0] and first["of these checkpoints"].iloc[-1] == UNTOLD
    latex = (tmp_path / "out/table_findings.tex").read_text()
    assert latex.count(r"\begin{table*}") == 2 and r"$-$" in latex and "−" not in latex
