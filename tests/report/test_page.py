"""The page holds what Parquet holds: values of runs, curves on the same batches, and the very bytes of each file."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deconattn.report.draw import draw
from deconattn.report.page import SMOOTHING, write_page_of
from tests.make_results import make_runs, report

GIVEN = {"table_findings": {"models": ["nano"]}, "table1": {"model": "nano"}, "figure5": {"models": ["nano"]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Tables of two seeds with a run that is missing and one that diverged, and their page."""
    root = tmp_path_factory.mktemp("page")
    of = {"variants": ("mlp", "approximate", "rndembqk"), "seeds": (0, 1)}
    tables = report(root, make_runs(root, **of, missing=[("rndembqk", "even")], diverged=[("mlp", "uniform")]))
    exhibits = {name: root / name for name in GIVEN}
    for name, options in GIVEN.items():
        draw(name, tables, exhibits[name], options)
    return tables, write_page_of("two </script> seeds", exhibits, tables, root / "page.html").read_text()


def data(page: str) -> dict:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert text
    return json.loads(text[1])


def test_a_run_has_its_values_and_its_difference_to_the_same_seed(made: tuple[Path, str]) -> None:
    tables, page = made
    rows = {(row["variant"], row["layout"], row["seed"]): row for row in data(page)["runs"]}
    names = ("runs", "evaluation", "samples")
    runs, evaluation, samples = (pd.read_parquet(tables / f"{name}.parquet") for name in names)
    assert set(rows) == set(zip(runs["variant"], runs["layout"], runs["seed"], strict=True))
    mine, standard = rows["approximate", "even", 1], rows["standard", "uniform", 1]
    known = runs.set_index("run").loc[mine["run"]]
    assert (mine["loss"], mine["tokens_per_second"]) == (known["final_heldout_loss"], known["tokens_per_second"])
    text = evaluation.query(
        "run == @mine['run'] and mode == 'full' and metric == 'bits_per_byte' and task == 'heldout'"
    )
    assert mine["measure"] == "Held-out, bits per byte"
    assert mine["quality"] == pytest.approx(text["value"].item())
    own = samples.query("mode == 'full' and task == 'heldout'")
    sums = own.groupby("run", observed=True)[["nll", "words"]].sum()
    difference = sums.loc[mine["run"], "nll"] - sums.loc[standard["run"], "nll"]
    assert mine["delta"] == pytest.approx(difference / sums.loc[mine["run"], "words"])
    assert mine["low"] < mine["delta"] < mine["high"]
    assert rows["rndembqk", "even", 0]["status"] == "missing" and rows["rndembqk", "even", 0]["loss"] is None
    lost = rows["mlp", "uniform", 0]
    assert lost["status"] == "diverged" and lost.get("delta") is None and lost["train_loss"] is None
    first = [row["variant"] for row in data(page)["runs"][:2]]
    assert first == ["standard", "standard"], "what others compare with"


def test_curves_are_running_means_and_differences_on_the_same_batches(made: tuple[Path, str]) -> None:
    tables, page = made
    curves = {curve["run"]: curve for curve in data(page)["curves"]}
    training = pd.read_parquet(tables / "training.parquet")
    losses = training.pivot(index="tokens", columns="run", values="loss")
    names = ("approximate-even", "standard-uniform")
    mine, standard = (next(run for run in losses if f"nano-{name}-s1" in run) for name in names)
    width = round(len(losses) * SMOOTHING)
    for name, values in (("loss", losses[mine]), ("delta", losses[mine] - losses[standard])):
        shown = pd.Series(curves[mine][name], index=curves[mine]["tokens"])
        at = shown.index[len(shown) // 2]
        middle = values.index.get_loc(at)
        first = middle - width // 2
        assert shown[at] == pytest.approx(values.iloc[first : first + width].mean(), rel=1e-4), name
    assert curves[mine]["tokens"][-1] == losses.index[-1] and "delta" not in curves[standard]
    lost = next(run for run in losses if "mlp-uniform-s0" in run)
    assert np.isfinite([value for value in curves[lost]["loss"] if value is not None]).all()


def test_it_holds_each_exhibit_with_the_bytes_of_its_files(made: tuple[Path, str]) -> None:
    tables, page = made
    for name, kinds in (("table1", "parquet csv tex json"), ("figure5", "png svg pdf json")):
        for kind in kinds.split():
            found = re.search(rf'download="{name}\.{kind}" href="data:[^;]+;base64,([^"]+)"', page)
            assert found and base64.b64decode(found[1]) == (tables.parent.parent / name / f"{name}.{kind}").read_bytes()
    assert re.search(r'<img [^>]*alt="Figure 5[^"]{40,}"', page), "a picture says what it shows"
    assert page.index('id="table_findings"') < page.index('id="all-runs"') < page.index('id="table1"')
    assert "two &lt;/script&gt; seeds" in page and page.count("<h1>") == 1
    identities = re.findall(r'<[^>]* id="([^"]+)"', page.partition('<script type="application/json"')[0])
    assert len(identities) == len(set(identities))
