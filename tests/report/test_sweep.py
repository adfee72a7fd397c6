"""Of several training settings of one model the best by held-out loss is shown, and said; all are collected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deconattn.exhibits import EXHIBITS
from deconattn.report import style, sweep
from deconattn.report.collect import collect
from deconattn.report.draw import make
from deconattn.report.names import HELDOUT
from deconattn.report.notes import run_gaps
from deconattn.report.results import Results
from tests.figure_words import assert_words_apart
from tests.make_results import NANO, make_runs, pairs

BEST, PLAIN = "is shown, the lowest held-out loss of 2 settings", "the setting of its model"
SWEEPS = {
    # Runs: variant, settings, seed, loss (None: not trained, negative: diverged); those that are shown; what is said.
    "mean over seeds": (
        [("mlp", "", 0, 3.0), ("mlp", "a", 0, 2.0), ("mlp", "", 1, 3.1), ("mlp", "a", 1, 4.5)], [0, 2], [f"{PLAIN} {BEST}"],
    ),
    "each variant, no sweep": (
        [("mlp", "", 0, 3.0), ("mlp", "a", 0, 2.0), ("rndembqk", "", 0, 1.0), ("rndembqk", "a", 0, 2.0),
         ("standard", "", 0, 9.0), ("standard", "", 1, None)],
        [1, 2, 4, 5], [f"a {BEST}", f"{PLAIN} {BEST}"],
    ),
    "a seed diverged": (
        [("mlp", "b", 0, 1.0), ("mlp", "b", 1, -0.5), ("mlp", "a", 0, 3.0)], [2], [f"a {BEST} (1 without one)"],
    ),
    "no loss yet": (
        [("mlp", "b", 0, None), ("mlp", "", 0, None)],
        [0], ["a sweep of 2 settings, none of them with a held-out loss yet"],
    ),
    "one setting": (
        [("mlp", "a", 0, 3.0), ("rndembqk", "", 0, 3.0)], [0, 1], ["trained with other settings than its model's: a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SWEEPS)
def test_the_best_setting_of_each_sweep_is_shown_and_said(name: str):
    rows, shown, reasons = SWEEPS[name]
    frame = pd.DataFrame(rows, columns=["variant", "settings", "seed", "final_heldout_loss"])
    loss = frame["final_heldout_loss"].astype(float)
    status = np.select([loss.isna(), loss < 0], ["missing", "diverged"], "finished")
    frame = frame.assign(model="nano", layout="uniform", status=status, final_heldout_loss=loss.abs())
    assert list(np.flatnonzero(sweep.is_best(frame))) == shown
    assert list(sweep.notes(frame)["reason"]) == reasons


def test_the_name_of_a_run_says_its_settings(tmp_path: Path):
    names = {
        "nano-mlp-even-s0-0123abcd": "",
        "500m-gqa-mlp-even-s12-lr0.001-0123abcd": "lr0.001",
        "nano-mlp-mine2-s0-steps24-lr1e-05-betas0.9_0.95-0123abcd": "steps24-lr1e-05-betas0.9_0.95",
    }
    collect({tmp_path / name: tmp_path / "evaluation" for name in names}, tmp_path)
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert dict(zip(runs["run"], runs["settings"], strict=True)) == names and set(runs["variant"]) == {"mlp"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected tables of standard and mlp at one rate, and of mlp at two more: one better, one not trained yet."""
    root = tmp_path_factory.mktemp("sweep")
    folders = make_runs(root, NANO, variants=("mlp",), layouts=("uniform",))
    (plain,) = [folder for folder in folders if "-mlp-" in folder.name]
    other, unborn = (plain.with_name(plain.name.replace("-s0-", f"-s0-{rate}-")) for rate in ("lr0.001", "lr0.1"))
    shutil.copytree(plain, other)
    spec = json.loads((other / "spec.json").read_text())
    spec["training"] |= {"peak_learning_rate": 0.001, "betas": [0.9, 0.95]}
    (other / "spec.json").write_text(json.dumps(spec))
    curve = pd.read_parquet(other / "train.parquet")
    curve["heldout_loss"] -= 1.0
    curve.to_parquet(other / "train.parquet")
    evaluation = pd.read_parquet(other / "evaluation.parquet")
    evaluation.loc[evaluation["task"] == "heldout", "value"] = 1.25
    evaluation.to_parquet(other / "evaluation.parquet")
    collect(pairs([*folders, other, unborn]), root / "tables")
    return root / "tables"


def test_swept_settings_are_columns_of_the_collected_runs_and_the_best_is_shown_and_said(tables: Path):
    found = pd.read_parquet(tables / "runs.parquet").set_index("settings")
    assert sorted(found.index) == ["", "", "lr0.001", "lr0.1"]
    swept = found.loc["lr0.001"]
    assert (swept["peak_learning_rate"], swept["beta1"], swept["beta2"]) == (0.001, 0.9, 0.95)
    assert found.loc["lr0.1", "status"] == "missing" and np.isnan(found.loc["lr0.1", "peak_learning_rate"])
    results = Results(tables)
    cell = results.cell("nano", "mlp", "uniform", "full", HELDOUT)
    assert (cell.value, cell.seeds) == (1.25, 1)
    assert set(results.training["run"]) == set(results.runs["run"])
    assert run_gaps(results, ["nano"], ["mlp"]) == [
        "mlp uniform: lr0.001 is shown, the lowest held-out loss of 3 settings (1 without one)"
    ]


def test_the_figure_shows_every_setting_and_rings_the_best(tables: Path):
    with style.styled():
        drawing = make(EXHIBITS["figure_sweep"], tables, {"model": "nano"})
        assert_words_apart(drawing.figure)
    uniform, hybrid = drawing.figure.axes
    runs = pd.read_parquet(tables / "runs.parquet").set_index(["variant", "settings"])["final_heldout_loss"]
    (curve,) = [line for line in uniform.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert list(curve.get_xdata()) == [0.001, 0.004]
    assert list(curve.get_ydata()) == pytest.approx([runs["mlp", "lr0.001"], runs["mlp", ""]])
    rings = [(list(line.get_xdata()), list(line.get_ydata())) for line in uniform.lines if line.get_markersize() == 8]
    assert sorted(rings) == [([0.001], [runs["mlp", "lr0.001"]]), ([0.004], [runs["standard", ""]])]
    assert len(hybrid.lines) == 3, "the standard model alone"
    assert drawing.gaps == ["mlp uniform: not trained yet (lr0.1)"]


def test_a_sweep_without_gaps_is_drawn(tables: Path, tmp_path: Path):
    for name in ("runs", "gaps"):
        whole = pq.read_table(tables / f"{name}.parquet")
        pq.write_table(
            whole.filter(pc.invert(pc.match_substring(whole["run"], "lr0.1-"))), tmp_path / f"{name}.parquet"
        )
    with style.styled():
        assert make(EXHIBITS["figure_sweep"], tmp_path, {"model": "nano"}).gaps == []
