"""What is gathered from runs: every value, every gap with its reason, no broken file."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deconattn.errors import UserError
from deconattn.report.collect import MAX_POINTS, collect, collect_analysis, thin
from deconattn.report.draw import draw
from deconattn.report.published import load_published
from deconattn.training.schema import TRAIN
from tests.conftest import ROOT, skip_or_fail
from tests.make_attention import make_analysis
from tests.make_results import NANO, make_baselines, make_runs, pairs, report

PUBLISHED = ROOT / "deconattn" / "report" / "published_results.csv"


def test_a_run_that_is_not_there_is_a_gap_and_no_number(tmp_path: Path) -> None:
    folders = make_runs(
        tmp_path,
        missing=[("rndembqk", "uniform")],
        diverged=[("nonapproximate", "uniform")],
        unevaluated=[("mlp", "even")],
    )
    collect(pairs(folders), tmp_path)
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index(["variant", "layout"])
    assert runs["status"].value_counts().to_dict() == {"finished": 11, "diverged": 1, "missing": 1}
    assert runs.loc[("rndembqk", "uniform"), "status"] == "missing"
    assert runs.loc[("rndembqk", "uniform"), ["parameters", "tokens", "final_train_loss"]].isna().all()
    assert runs.loc[("nonapproximate", "uniform"), "status"] == "diverged"
    gaps = pd.read_parquet(tmp_path / "gaps.parquet")
    assert set(zip(gaps["stage"], gaps["variant"].fillna(""), strict=True)) == {
        ("pretrain", "rndembqk"),
        ("pretrain", "nonapproximate"),
        ("evaluate", "mlp"),
        ("baselines", ""),
    }
    draw("table1", tmp_path, tmp_path / "out", {"model": "nano"})
    page = (tmp_path / "out" / "table1.html").read_text()
    for line in ("rndembqk uniform: not trained yet", "mlp hybrid (even): not evaluated yet", "training diverged"):
        assert line in page
    cells = pd.read_parquet(tmp_path / "out" / "table1.parquet").query("source == 'ours' and column == 'sciq.acc'")
    status = cells.set_index(["variant", "layout", "mode"])["status"]
    missing = [("rndembqk", "uniform", "full"), ("mlp", "even", "full"), ("mlp", "even", "skip")]
    assert {status[place] for place in missing} == {"missing"}
    assert status["nonapproximate", "uniform", "full"] == "diverged"
    assert cells.loc[cells["status"] != "ok", "value"].isna().all()


def test_runs_carry_what_the_run_left_under_the_name_that_they_have_now(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp", "rndembqk"))
    folders[0] = folders[0].rename(folders[0].with_name(folders[0].name[:-8] + "deadbeef"))  # adopted
    tables = report(tmp_path, folders)
    runs = pd.read_parquet(tables / "runs.parquet").set_index("run")
    assert list(runs.index) == [folder.name for folder in folders]
    for folder in folders:
        curve = pq.read_table(folder / "train.parquet").to_pydict()
        row = runs.loc[folder.name]
        assert row["final_train_loss"] == pytest.approx(statistics.fmean(curve["loss"][-25:]))
        assert row["final_heldout_loss"] == [x for x in curve["heldout_loss"] if x is not None][-1]
        assert (row["tokens"], row["steps"]) == (curve["tokens"][-1], len(curve["loss"]))
        assert (row["parameters"], row["context_length"]) == (NANO.parameters, 128)
    assert set(pd.read_parquet(tables / "training.parquet")["run"]) == set(runs.index)
    both = pd.concat([pd.read_parquet(folder / "evaluation.parquet").assign(run=folder.name) for folder in folders])
    kept = pd.read_parquet(tables / "evaluation.parquet")
    keys = ["run", "mode", "task", "metric", "context_length"]
    joined = both.merge(kept, on=keys, validate="one_to_one")
    assert len(joined) == len(both) == len(kept) and (joined["value_x"] == joined["value_y"]).all()


@pytest.mark.parametrize("damage", ["garbage", "column", "type"])
def test_a_broken_table_is_named(tmp_path: Path, damage: str) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    path = folders[0] / "evaluation.parquet"
    if damage == "garbage":
        path.write_bytes(b"PAR1 not really")
    else:
        frame = pd.read_parquet(path)
        (frame.drop(columns="stderr") if damage == "column" else frame.assign(value="high")).to_parquet(path)
    with pytest.raises(UserError) as raised:
        collect(pairs(folders), tmp_path / "report" / "tables")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert damage != "column" or "stderr" in str(raised.value)


def test_a_gap_says_how_the_last_attempt_ended(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",))
    reasons = {str(folders[0]): "loss is not finite at step 3", str(folders[1]): "not run yet"}
    lines = collect(pairs(folders), tmp_path / "tables", [make_baselines(tmp_path / "baselines.parquet")], reasons)
    names = [folder.name for folder in folders]
    assert lines == [f"{names[0]}: not trained: loss is not finite at step 3", f"{names[1]}: not trained yet"]


@pytest.mark.parametrize("steps", [10, MAX_POINTS, MAX_POINTS + 1, 28_610])
def test_a_thinned_curve_keeps_means_ends_and_divergence(steps: int) -> None:
    step = np.arange(1, steps + 1)
    curve = pd.DataFrame({name: np.random.default_rng(steps).random(steps) for name in TRAIN.names})
    curve = curve.assign(step=step, tokens=step * 8, heldout_loss=np.where(step % 100 == 0, 1.5, np.nan))
    short = thin(curve)
    assert len(short) <= MAX_POINTS and short["steps_averaged"].sum() == steps
    assert steps > MAX_POINTS or len(short) == steps
    assert np.average(short["loss"], weights=short["steps_averaged"]) == pytest.approx(curve["loss"].mean())
    assert short["tokens"].iloc[-1] == 8 * steps and short["step"].iloc[-1] == steps
    assert set(short["heldout_loss"].dropna()) <= {1.5}
    curve.loc[steps // 2, "loss"] = np.nan
    assert thin(curve)["loss"].isna().sum() == 1


def test_collecting_keeps_every_value_and_names_what_is_missing(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, NANO, variants=("approximate", "mlp"), missing={("approximate", "even")})
    make_analysis(folders, skip={("standard", "uniform")}, broken={("mlp", "even")})
    gaps = collect_analysis(pairs(folders), tmp_path)
    by_run = {gap.split(":")[0].rsplit("-", 2)[0]: gap.split(": ", 1)[1] for gap in gaps}
    assert by_run == {"nano-standard-uniform": "not analysed yet", "nano-mlp-even": "a score of layer 3 is not finite"}
    for name in ("attention", "scores"):
        collected = pd.read_parquet(tmp_path / f"{name}.parquet")
        # mlp has no map.
        (left,) = [pd.read_parquet(f / f"{name}.parquet") for f in folders if "approximate-uniform" in f.name]
        pd.testing.assert_frame_equal(collected, left)


def test_published_values_are_the_papers_in_our_units() -> None:
    raw, ours = pd.read_csv(PUBLISHED, keep_default_na=False), load_published()
    assert len(ours) == len(raw) > 400
    layouts = {"none": ("uniform", "full"), "uniform": ("uniform", "full"), "hybrid": ("even", "full")}
    for line, row in zip(raw.itertuples(), ours.itertuples(), strict=True):
        assert row.value * (100 if line.metric == "acc" else 1) == pytest.approx(float(line.value))
        assert (row.layout, row.mode) == layouts.get(line.layout, ("even", "skip"))
        same = ("variant", "task", "context_length")
        assert [getattr(row, name) for name in same] == [getattr(line, name) for name in same]
    assert ours.loc[ours["metric"] == "acc", "value"].between(0, 1).all()


def test_the_packaged_values_are_the_shared_ones(shared_data: Path) -> None:
    source = shared_data.parent / "paper" / "published_results.csv"
    if not source.is_file():
        skip_or_fail(f"the paper's values are not there: {source} is absent")
    assert source.read_bytes() == PUBLISHED.read_bytes()
