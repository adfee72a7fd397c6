"""Figures 3 to 5: the values drawn are the runs', no words overlap, what is missing is said."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.text import Text

from deconattn.exhibits import EXHIBITS, NINE
from deconattn.layouts import LAYOUTS
from deconattn.report import style
from deconattn.report.draw import Drawing, make
from deconattn.report.names import COLOURS, MARKERS
from tests.conftest import slow
from tests.figure_words import assert_words_apart, beyond, dots_of, style_of, words
from tests.make_results import NANO, NINE_LAYOUTS, PAPER_SIZES, SIMPLE, make_runs, report

FIGURES = ("figure3", "figure4", "figure5")
GRIDS: dict[str, dict[str, Any]] = {
    "demo": {},
    "holes": {
        "missing": [("rndembqk", "uniform"), ("fixedseqqk", "even")],
        "diverged": [("nonapproximate", "uniform")],
        "unevaluated": [("mlp", "even")],
    },
    "seeds": {"seeds": (0, 1, 2)},
    "tiny": {
        "size": replace(NANO, steps=12, tokens=1536, loss=9.2, tasks=("copa", "heldout")),
        "variants": ("rndembqk",),
        "layouts": ("even",),
    },
}


class Tables(dict[str, Path]):
    """Collected tables of `GRIDS`, of the paper's shape or of its largest model alone, made when they are asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory

    def __missing__(self, name: str) -> Path:
        root = self.factory.mktemp(name)
        if name in GRIDS:
            folders = make_runs(root, **GRIDS[name])
        else:
            sizes = PAPER_SIZES if name == "paper" else PAPER_SIZES[2:]
            folders = [folder for size in sizes for folder in make_runs(root, size)]
            folders += make_runs(root, PAPER_SIZES[2], ("rndembqk", "nonapproximate"), NINE_LAYOUTS)
        self[name] = report(root, list(dict.fromkeys(folders)))
        return self[name]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(tmp_path_factory)


def options(exhibit: str, name: str) -> dict[str, Any]:
    models = {"paper": [size.name for size in PAPER_SIZES], "500m": ["500m"]}.get(name, ["nano"])
    return {"model": models[-1]} if exhibit == "figure3" else {"models": models}


@cache
def drawn(exhibit: str, folder: Path, name: str) -> Drawing:
    with style.styled():
        return make(EXHIBITS[exhibit], folder, options(exhibit, name))


@pytest.mark.parametrize("exhibit", FIGURES)
@pytest.mark.parametrize("name", ["holes", "tiny", *slow("paper", "seeds")])
def test_all_words_can_be_read_at_the_printed_size(exhibit: str, name: str, tables: dict[str, Path]) -> None:
    with style.styled():
        figure = make(EXHIBITS[exhibit], tables[name], options(exhibit, name)).figure
        assert_words_apart(figure)
    assert figure.get_figwidth() in (style.SINGLE_COLUMN, style.DOUBLE_COLUMN)
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 6.5
    hidden = beyond(figure)
    for axis in figure.findobj(Axis):
        labels = [t.get_text() for t in axis.get_majorticklabels() if id(t) not in hidden and t.get_text()]
        assert len(set(labels)) == len(labels), "two ticks read the same"


def test_figure4_shows_the_values_of_the_runs_and_the_papers_in_panels_of_their_own(tables: dict[str, Path]) -> None:
    figure = drawn("figure4", tables["demo"], "demo").figure
    values = pd.read_parquet(tables["demo"] / "evaluation.parquet").query("mode == 'full'")
    columns = [("heldout", "bits_per_byte", 1), ("arc_easy", "acc", 100), ("sciq", "acc", 100)]
    panels = [figure.axes[at] for at in (0, 2, 3)]  # behind the first stands that of differences
    for axes, (task, metric, scale) in zip(panels, columns, strict=True):
        wanted = values[(values["task"] == task) & (values["metric"] == metric)]
        expected = sorted((style_of(row.variant, row.layout), scale * row.value) for row in wanted.itertuples())
        assert dots_of(axes) == [(look, pytest.approx(value)) for look, value in expected]
        assert len(expected) == 13
    assert len(figure.axes) == 10
    arc = dots_of(figure.axes[7])
    assert (style_of("standard", "uniform"), pytest.approx(41.5)) in arc
    assert (style_of("mlp", "even"), pytest.approx(37.5)) in arc and len(arc) == 13
    text = words(figure)
    assert "Published (arXiv:2510.11602v1): 500m" in text and "another size" not in text
    assert "This run: nano, 0.41M parameters, 2.6M tokens, 1 seed" in text and "90,000 →" in text


@pytest.mark.parametrize("name", ["demo", "seeds"])
def test_differences_to_standard_are_those_of_the_samples(name: str, tables: dict[str, Path]) -> None:
    """Of documents with one seed, of seeds with several, each with its bounds; the paper's are points."""
    figure = drawn("figure4", tables[name], "demo").figure
    rows = pd.read_parquet(tables[name] / "samples.parquet").query("mode == 'full'")
    rows = rows.astype({"run": str, "task": str})
    runs = pd.read_parquet(tables[name] / "runs.parquet").set_index("run")[["variant", "layout"]]
    text = rows[rows["task"] == "heldout"].groupby("run")[["nll", "words"]].sum()
    items = rows[rows["correct"] >= 0].groupby(["run", "task"])["correct"].mean()
    of_runs = {1: text["nll"] / text["words"], 4: 100 * items.groupby("run").mean()}
    for panel, values in of_runs.items():
        means = runs.join(values.rename("value"), how="inner").groupby(["variant", "layout"])["value"].mean()
        expected = {
            style_of(*place): pytest.approx(value - means["standard", "uniform"]) for place, value in means.items()
        }
        found = dict(dots_of(figure.axes[panel]))
        assert found == {look: value for look, value in expected.items() if look[0] != MARKERS["standard"]}
        assert len(found) == 12
    lines = [line.get_xdata() for line in figure.axes[1].lines if line.get_marker() == "None"]
    assert len([ends for ends in lines if len(ends) == 2 and ends[0] < ends[1]]) == 12, "whiskers"
    assert f"Δ: bounds over {'seeds' if name == 'seeds' else 'documents'}" in words(figure)
    assert dict(dots_of(figure.axes[6]))[style_of("mlp", "even")] == pytest.approx(np.log(45.8 / 38.1))
    assert dict(dots_of(figure.axes[9]))[style_of("mlp", "even")] == pytest.approx(48.7 - 51.9)


def test_figure5_shows_differences_on_the_same_batches(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["demo"], "demo").figure
    curves = {}
    for variant in ("standard", "mlp"):
        (folder,) = (tables["demo"].parent.parent / "runs").glob(f"nano-{variant}-uniform-s0-*")
        curves[variant] = pd.read_parquet(folder / "train.parquet").set_index("tokens")["loss"]
    delta = (curves["mlp"] - curves["standard"]).rolling(50, center=True, min_periods=1).mean()
    (drawn_line,) = [
        line for line in figure.axes[1].lines if line.get_color() == COLOURS["mlp"] and line.get_linestyle() == "-"
    ]
    assert drawn_line.get_ydata() == pytest.approx(delta.loc[drawn_line.get_xdata()].to_numpy())


@pytest.mark.slow
def test_a_panel_of_infinite_values_is_not_called_empty(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, PAPER_SIZES[0], variants=("mlp",))
    for folder in folders:
        frame = pd.read_parquet(folder / "evaluation.parquet")
        frame.loc[frame["metric"] == "word_perplexity", "value"] = np.inf
        frame.to_parquet(folder / "evaluation.parquet")
    with style.styled():
        figure = make(EXHIBITS["figure4"], report(tmp_path, folders), {"models": ["70m"], "published": False}).figure
    assert "infinite" in words(figure) and "not evaluated" not in words(figure)


@pytest.mark.slow
def test_figure3_shows_nine_layouts_their_layers_and_the_standard_line(tables: dict[str, Path]) -> None:
    pictures, panel = drawn("figure3", tables["500m"], "500m").figure.axes[:2]
    values = pd.read_parquet(tables["500m"] / "evaluation.parquet").query("mode == 'full'")
    wikitext = values.query("task == 'wikitext' and metric == 'word_perplexity' and context_length == 2048")
    own = wikitext[wikitext["variant"].isin(["rndembqk", "nonapproximate"]) & (wikitext["layout"] != "uniform")]
    expected = sorted((style_of(row.variant, row.layout), row.value) for row in own.itertuples())
    dots = dots_of(panel)
    assert dots == [(look, pytest.approx(value)) for look, value in expected] and len(dots) == 18
    standard = wikitext.query("variant == 'standard'")["value"].item()
    dotted = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == ":"]
    assert dotted == [pytest.approx(standard)]
    assert set(NINE) == set(LAYOUTS) - {"uniform"} and len(NINE) == 9
    cells = [p for p in pictures.patches if p.get_height() == pytest.approx(0.44)]
    assert len(cells) == 9 * 24
    row = [cell for cell in cells if round(cell.get_y() + 0.22) == NINE.index("quarter")]
    dark = [n for n, cell in enumerate(sorted(row, key=lambda c: c.get_x()), 1) if sum(cell.get_facecolor()[:3]) < 1]
    assert dark == [4, 8, 12, 16, 20, 24]


def test_figure5_ends_in_the_losses_of_the_runs_uniform_solid_and_hybrid_dashed(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["demo"], "demo").figure
    for folder in (tables["demo"].parent.parent / "runs").iterdir():
        curve = pd.read_parquet(folder / "train.parquet")
        variant = folder.name.split("-")[1]
        assert f"{variant} {curve['loss'].iloc[-25:].mean():.2f}" in words(figure)
    for axes, dashed in zip(figure.axes[::2], (False, True), strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) > 50 and line.get_linewidth() > 1]
        curves = [line for line in curves if line.get_linestyle() != "None"]
        assert len(curves) == 7
        for line in curves:
            standard = line.get_color() == COLOURS["standard"]
            assert (line.get_linestyle() != "-") == (dashed and not standard)


def test_figure5_smooths_over_the_seeds_and_shows_their_range(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["seeds"], "seeds").figure
    assert len(figure.axes[0].collections) == 7 and "3 seeds" in words(figure)
    runs = pd.read_parquet(tables["seeds"] / "runs.parquet").query("variant == 'mlp' and layout == 'uniform'")
    assert f"mlp {runs['final_train_loss'].mean():.2f}" in words(figure) and len(runs) == 3
    losses = pd.read_parquet(tables["seeds"] / "training.parquet").query("run in @runs.run")
    (curve,) = [line for line in figure.axes[0].lines if line.get_color() == COLOURS["mlp"] and line.get_linewidth() > 1
                and line.get_linestyle() == "-"]  # fmt: skip
    middle, step = curve.get_xdata()[400], NANO.tokens / NANO.steps
    window = losses[losses["tokens"].between(middle - 25 * step, middle + 24 * step)]
    assert len(window) == 3 * 50, "2 % of 2,500 steps"
    assert curve.get_ydata()[400] == pytest.approx(window["loss"].mean())


@pytest.mark.parametrize("exhibit", ["figure4", "figure5"])
def test_what_is_missing_is_said_in_the_figure_and_not_drawn(exhibit: str, tables: dict[str, Path]) -> None:
    drawing = drawn(exhibit, tables["holes"], "holes")
    text = words(drawing.figure)
    assert "Gaps:" in text and "rndembqk uniform: not trained yet" in text
    assert "fixedseqqk hybrid (even): not trained yet" in text and "diverged" in text
    assert any("rndembqk uniform" in gap for gap in drawing.gaps)
    assert ("mlp hybrid (even): not evaluated yet" in text) == (exhibit == "figure4")
    if exhibit == "figure4":
        looks = [look for look, _ in dots_of(drawing.figure.axes[2])]
        assert len(looks) == 13 - 4 and style_of("rndembqk", "uniform") not in looks
    assert len(drawing.runs) == 11 and not any("rndembqk-uniform" in run for run in drawing.runs)
    whole = drawn(exhibit, tables["demo"], "demo")
    assert not whole.gaps and "Gaps:" not in words(whole.figure)


def test_layouts_outside_the_grid_are_said(tables: dict[str, Path]) -> None:
    gaps = drawn("figure3", tables["demo"], "demo").gaps
    assert gaps == ["not in this grid: odd, top, middle, bottom, quarter, first, last, bilateral"]


def test_a_model_without_any_finished_run_is_drawn_empty(tmp_path: Path) -> None:
    every = [("standard", "uniform"), *itertools.product(SIMPLE, ("uniform", "even"))]
    folder = report(tmp_path, make_runs(tmp_path, missing=every))
    for exhibit, word in (("figure3", "not evaluated"), ("figure4", "not evaluated"), ("figure5", "no run to draw")):
        drawing = drawn(exhibit, folder, "demo")
        assert word in words(drawing.figure) and not drawing.runs
