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
from deconattn.report.draw import Drawing, draw, make
from deconattn.report.names import COLOURS, MARKERS
from deconattn.report.notes import outside_grid
from deconattn.report.results import Results
from tests.conftest import slow
from tests.figure_words import assert_words_apart, beyond, words
from tests.make_results import NANO, NINE_LAYOUTS, PAPER_SIZES, SIMPLE, make_runs, report
from tests.report.markers import dots_of, style_of

FIGURES = ("figure3", "figure4", "figure5")


HOLES: dict[str, Any] = {
    "missing": [("rndembqk", "uniform"), ("fixedseqqk", "even")],
    "diverged": [("nonapproximate", "uniform")],
    "unevaluated": [("mlp", "even")],
}


TINY = {
    "size": replace(NANO, steps=12, tokens=1536, loss=9.2, tasks=("copa", "heldout")),
    "variants": ("rndembqk",),
    "layouts": ("even",),
}


class Tables(dict[str, Path]):
    """Collected tables by name, made when one is asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory

    def __missing__(self, name: str) -> Path:
        root = self.factory.mktemp(name)
        if name in ("paper", "500m"):
            sizes = PAPER_SIZES if name == "paper" else PAPER_SIZES[2:]
            folders = [folder for size in sizes for folder in make_runs(root, size)]
            folders += make_runs(root, PAPER_SIZES[2], ("rndembqk", "nonapproximate"), NINE_LAYOUTS)
        else:
            own: dict[str, Any] = {"demo": {}, "holes": HOLES, "seeds": {"seeds": (0, 1, 2)}, "tiny": TINY}[name]
            folders = make_runs(root, **own)
        self[name] = report(root, list(dict.fromkeys(folders)))
        return self[name]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Of a demo, one with holes, one with three seeds, one in the paper's shape, its largest model alone, a tiny one."""
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


def test_figure4_shows_the_values_of_the_runs(tables: dict[str, Path]) -> None:
    figure = drawn("figure4", tables["demo"], "demo").figure
    values = pd.read_parquet(tables["demo"] / "evaluation.parquet").query("mode == 'full'")
    columns = [("heldout", "bits_per_byte", 1), ("arc_easy", "acc", 100), ("sciq", "acc", 100)]
    panels = [figure.axes[at] for at in (0, 2, 3)]  # behind the first stands that of differences
    for axes, (task, metric, scale) in zip(panels, columns, strict=True):
        wanted = values[(values["task"] == task) & (values["metric"] == metric)]
        expected = sorted((style_of(row.variant, row.layout), scale * row.value) for row in wanted.itertuples())
        assert dots_of(axes) == [(look, pytest.approx(value)) for look, value in expected]
        assert len(expected) == 13


def test_differences_to_standard_are_those_of_the_samples(tables: dict[str, Path]) -> None:
    """Of documents with one seed, of seeds with several, each with its bounds; the paper's are points."""
    for name in ("demo", "seeds"):
        figure = drawn("figure4", tables[name], "demo").figure
        rows = pd.read_parquet(tables[name] / "samples.parquet").query("mode == 'full' and task == 'heldout'")
        runs = pd.read_parquet(tables[name] / "runs.parquet").set_index("run")
        totals = (
            rows.astype({"run": str}).groupby("run")[["nll", "words"]].sum().join(runs[["variant", "layout", "seed"]])
        )
        loss = (totals["nll"] / totals["words"]).groupby([totals["variant"], totals["layout"]]).mean()
        expected = {style_of(*place): value - loss["standard", "uniform"] for place, value in loss.items()}
        found = dict(dots_of(figure.axes[1]))
        assert found == {look: pytest.approx(v) for look, v in expected.items() if look[0] != MARKERS["standard"]}
        whiskers = [line for line in figure.axes[1].lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
        assert len([line for line in whiskers if line.get_xdata()[0] < line.get_xdata()[1]]) == len(found) == 12
        assert f"Δ: bounds over {'seeds' if name == 'seeds' else 'documents'}" in words(figure)
        published = dict(dots_of(figure.axes[6]))
        assert published[style_of("mlp", "even")] == pytest.approx(np.log(45.8 / 38.1))
        items = pd.read_parquet(tables[name] / "samples.parquet").query("mode == 'full' and correct >= 0")
        by_task = items.astype({"run": str, "task": str}).groupby(["run", "task"])["correct"].mean()
        means = runs[["variant", "layout"]].join(by_task.groupby("run").mean(), how="inner")
        score = means.groupby(["variant", "layout"])["correct"].mean()
        points = {style_of(*place): 100 * (value - score["standard", "uniform"]) for place, value in score.items()}
        shown = dict(dots_of(figure.axes[4]))
        assert shown == {look: pytest.approx(v) for look, v in points.items() if look[0] != MARKERS["standard"]}
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


def test_figure4_shows_the_papers_values_in_panels_of_their_own(tables: dict[str, Path]) -> None:
    figure = drawn("figure4", tables["demo"], "demo").figure
    assert len(figure.axes) == 10
    arc = dots_of(figure.axes[7])
    assert (style_of("standard", "uniform"), pytest.approx(41.5)) in arc
    assert (style_of("mlp", "even"), pytest.approx(37.5)) in arc and len(arc) == 13
    text = words(figure)
    assert "Published (arXiv:2510.11602v1): 500m" in text and "another size" not in text
    assert "This run: nano, 0.41M parameters, 2.6M tokens, 1 seed" in text and "90,000 →" in text


@pytest.mark.slow
def test_a_panel_of_infinite_values_is_not_called_empty(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, PAPER_SIZES[0])
    for folder in folders:
        frame = pd.read_parquet(folder / "evaluation.parquet")
        frame.loc[frame["metric"] == "word_perplexity", "value"] = np.inf
        frame.to_parquet(folder / "evaluation.parquet")
    folder = report(tmp_path, folders)
    for exhibit, chosen in (("figure3", {"model": "70m"}), ("figure4", {"models": ["70m"], "published": False})):
        with style.styled():
            figure = make(EXHIBITS[exhibit], folder, chosen).figure
            assert_words_apart(figure)
        found = " ".join(text.get_text() for text in figure.axes[exhibit == "figure3"].texts)
        assert "infinite" in found and "not evaluated" not in found


@pytest.mark.slow
def test_whiskers_are_called_what_they_are(tables: dict[str, Path], tmp_path: Path) -> None:
    one = words(drawn("figure3", tables["demo"], "demo").figure)
    assert "± is the standard error over test items" in one and "Held-out (bits per byte): without." in one
    demo = words(drawn("figure4", tables["demo"], "demo").figure)
    assert "± standard error" in demo and "deviation" not in demo
    three = words(drawn("figure3", tables["seeds"], "demo").figure)
    assert "± is the standard deviation over training seeds." in three and "without" not in three
    both = make_runs(tmp_path, NANO, seeds=(0, 1)) + make_runs(tmp_path, replace(NANO, name="micro"))
    with style.styled():
        mixed = words(make(EXHIBITS["figure4"], report(tmp_path, both), {"models": ["nano", "micro"]}).figure)
    assert "where only one seed is there, the standard error over test items" in mixed
    assert "± (see foot)" in mixed


@pytest.mark.slow
def test_figure3_shows_nine_layouts_and_the_standard_line(tables: dict[str, Path]) -> None:
    figure = drawn("figure3", tables["500m"], "500m").figure
    values = pd.read_parquet(tables["500m"] / "evaluation.parquet").query("mode == 'full'")
    wikitext = values.query("task == 'wikitext' and metric == 'word_perplexity' and context_length == 2048")
    dots = dots_of(figure.axes[1])
    own = wikitext[wikitext["variant"].isin(["rndembqk", "nonapproximate"]) & (wikitext["layout"] != "uniform")]
    expected = sorted((style_of(row.variant, row.layout), row.value) for row in own.itertuples())
    assert dots == [(look, pytest.approx(value)) for look, value in expected] and len(dots) == 18
    dotted = [line for line in figure.axes[1].lines if line.get_linestyle() == ":"]
    standard = wikitext.query("variant == 'standard'")["value"].item()
    assert [line.get_xdata()[0] for line in dotted] == [pytest.approx(standard)]
    assert set(NINE) == set(LAYOUTS) - {"uniform"} and len(NINE) == 9


def test_figure3_pictures_the_layers(tables: dict[str, Path]) -> None:
    axes = drawn("figure3", tables["500m"], "500m").figure.axes[0]
    cells = [p for p in axes.patches if p.get_height() == pytest.approx(0.44)]
    assert len(cells) == 9 * 24
    row = [cell for cell in cells if round(cell.get_y() + 0.22) == NINE.index("quarter")]
    dark = [n for n, cell in enumerate(sorted(row, key=lambda c: c.get_x()), 1) if sum(cell.get_facecolor()[:3]) < 1]
    assert dark == [4, 8, 12, 16, 20, 24]


def test_figure5_ends_in_the_losses_of_the_runs(tables: dict[str, Path]) -> None:
    text = words(drawn("figure5", tables["demo"], "demo").figure)
    for folder in (tables["demo"].parent.parent / "runs").iterdir():
        curve = pd.read_parquet(folder / "train.parquet")
        variant = folder.name.split("-")[1]
        assert f"{variant} {curve['loss'].iloc[-25:].mean():.2f}" in text


def test_figure5_draws_uniform_solid_and_hybrid_dashed(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["demo"], "demo").figure
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
    drawing = drawn("figure3", tables["demo"], "demo")
    assert drawing.gaps == ["not in this grid: odd, top, middle, bottom, quarter, first, last, bilateral"]
    results = Results(tables["500m"])
    assert outside_grid(results, "500m", ["mlp", "rndembqk"], ["even", "odd"]) == ["not in this grid: mlp odd"]
    assert outside_grid(results, "500m", ["rndembqk"], NINE_LAYOUTS) == []


def test_a_model_without_any_finished_run_is_drawn_empty(tmp_path: Path) -> None:
    every = [("standard", "uniform"), *itertools.product(SIMPLE, ("uniform", "even"))]
    folder = report(tmp_path, make_runs(tmp_path, missing=every))
    for exhibit, word in (("figure3", "not evaluated"), ("figure4", "not evaluated"), ("figure5", "no run to draw")):
        drawing = drawn(exhibit, folder, "demo")
        assert word in words(drawing.figure) and not drawing.runs


@pytest.mark.slow
def test_a_training_of_one_step_beside_a_longer_one_is_drawn(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, replace(NANO, steps=1, tokens=128), variants=("mlp", "rndembqk"))
    longer = make_runs(tmp_path, replace(NANO, steps=90, tokens=90 * 128), variants=("mlp",), layouts=("even",))
    assert folders[3] == longer[1]
    draw("figure5", report(tmp_path, folders), tmp_path / "out", {"models": ["nano"]})


def test_equal_tables_give_equal_bytes(tables: dict[str, Path], tmp_path: Path) -> None:
    """Of other exhibits, those that are drawn again in tests/workflow/test_situations.py show it."""
    for folder in ("first", "second"):
        draw("figure3", tables["demo"], tmp_path / folder, options("figure3", "demo"))
    for name in EXHIBITS["figure3"].files:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(EXHIBITS["figure3"].files)
