"""Figures 1, 2, 6, 7 and 8: indicators and scores of attention."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from deconattn.exhibits import EXHIBITS
from deconattn.files import sha256_file
from deconattn.report import indicators, style
from deconattn.report.collect import collect_analysis
from deconattn.report.draw import Drawing, draw, make
from deconattn.report.indicators import INDICATORS, attention_of, place, scales_of
from deconattn.report.results import Results
from tests.conftest import slow
from tests.figure_words import assert_words_apart, words
from tests.make_attention import make_analysis
from tests.make_results import NANO, SIMPLE, make_runs, pairs, report

FIGURES = ("figure1", "figure2", "figure6", "figure7", "figure8")


MODEL = {"model": "nano"}


def analysed(root: Path, seeds: tuple[int, ...] = (0,), **keywords: Any) -> Results:
    """The collected tables of invented runs; `skip`, `broken` and `layers` are passed on to their analysis."""
    for_analysis = {k: keywords.pop(k) for k in ("skip", "broken", "layers", "outliers") if k in keywords}
    folders = make_runs(root, NANO, seeds=seeds, **keywords)
    make_analysis(folders, **for_analysis)
    tables = report(root, folders)
    collect_analysis(pairs(folders), tables)
    return Results(tables)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return analysed(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return analysed(
        tmp_path_factory.mktemp("holes"),
        missing={("approximate", "uniform"), ("rndembqk", "even")},
        diverged={("nonapproximate", "uniform")},
        skip={("fixedseqqk", "uniform")},
        broken={("staticembqk", "uniform"), ("nonapproximate", "uniform")},
    )


def drawn(exhibit: str, results: Results, **options: Any) -> Drawing:
    with style.styled():
        drawing: Drawing = make(EXHIBITS[exhibit], results.folder, {**MODEL, **options})
        FigureCanvasAgg(drawing.figure).draw()
    return drawing


def chart(figure: Figure, title: str) -> Axes:
    """The chart with this title."""
    found = [axes for axes in figure.axes if title in (axes.get_title(), axes.get_title("left"))]
    assert len(found) == 1, f"{len(found)} charts are called {title!r}"
    return found[0]


def cells(axes: Axes) -> np.ndarray:
    """What a heat map shows, the first layer first: (layers, indicators), between 0 and 1."""
    (mesh,) = axes.collections
    assert axes.get_ylim()[0] < axes.get_ylim()[1], "the first layer is at the bottom"
    return np.asarray(mesh.get_array()).reshape(-1, len(INDICATORS))


def test_values_are_means_over_heads_and_seeds(tmp_path: Path) -> None:
    results = analysed(tmp_path, seeds=(0, 1), variants=("approximate",))
    layers = attention_of(results, "nano")["approximate", "even"]
    rows = pq.read_table(results.folder / "attention.parquet").to_pylist()
    assert len(layers.runs) == 2 and layers.standard.tolist() == [False, True, False, True]
    for layer in (1, 2, 3, 4):
        for name in INDICATORS:
            own = [
                row["value"] for row in rows if (row["layout"], row["layer"], row["indicator"]) == ("even", layer, name)
            ]
            assert len(own) == (2 if name == "head_diversity" else 4)
            assert layers.values.loc[layer, name] == pytest.approx(sum(own) / len(own))


def layers_of(**values: float) -> indicators.Layers:
    frame = pd.DataFrame([{**dict.fromkeys(INDICATORS, 0.25), **values}], index=[1])
    return indicators.Layers(frame, pd.Series([False], index=[1]), ("run",))


def test_scales_reach_from_the_least_and_of_shares_from_zero() -> None:
    scales = scales_of([layers_of(entropy=1.0, concentration=7.0), layers_of(entropy=3.0, concentration=7.0, sink=0.9)])
    drawn = place(layers_of(entropy=1.5, concentration=7.0, sink=0.6, local_focus_2=0.1).values, scales).iloc[0]
    assert drawn["entropy"] == pytest.approx(0.25)
    assert drawn["concentration"] == 0.5, "all equal: in the middle"
    assert drawn["sink"] == pytest.approx(0.6 / 0.9)
    assert drawn["local_focus_2"] == pytest.approx(0.1 / 0.25)


def test_heat_maps_show_the_values_on_one_scale_in_all_three_figures(results: Results) -> None:
    found = attention_of(results, "nano")
    scales = {
        name: (
            0.0 if name in indicators.SHARES else min(float(layers.values[name].min()) for layers in found.values()),
            max(float(layers.values[name].max()) for layers in found.values()),
        )
        for name in INDICATORS
    }
    beside = [("uniform", "uniform"), ("even", "hybrid (even)")]
    wanted = {"figure1": (SIMPLE[1:], beside[:1]), "figure7": (SIMPLE[1:3], beside), "figure8": (SIMPLE[3:], beside)}
    for name, (variants, layouts) in wanted.items():
        charts = {f"{v} {label}": (v, at) for v in variants for at, label in layouts}
        charts["standard"] = ("standard", "uniform")
        figure = drawn(name, results).figure
        assert sum(len(axes.collections) == 1 and bool(axes.get_title("left")) for axes in figure.axes) == len(charts)
        for title, pair in charts.items():
            values = found[pair].values
            expected = [
                [(row[i] - low) / (high - low) for i, (low, high) in scales.items()] for _, row in values.iterrows()
            ]
            np.testing.assert_allclose(cells(chart(figure, title)), expected)
    assert "Without an attention map: mlp uniform." in words(drawn("figure1", results).figure)
    low, high = scales["entropy"]
    assert f"entropy, nats {low:.3g} to {high:.3g}" in words(drawn("figure8", results).figure)


def test_layers_that_keep_standard_attention_are_marked_without_colour(results: Results) -> None:
    figure = drawn("figure7", results).figure
    (marks,) = chart(figure, "approximate hybrid (even)").lines
    assert marks.get_marker() == "s" and list(marks.get_ydata()) == [1.5, 3.5]
    assert not chart(figure, "approximate uniform").lines and not chart(figure, "standard").lines


def test_radar_charts_are_an_option(results: Results) -> None:
    figure = drawn("figure7", results, form="radar").figure
    found = attention_of(results, "nano")
    scales = scales_of(list(found.values()))
    axes = chart(figure, "approximate hybrid (even)")
    layers = found["approximate", "even"]
    outlines = axes.lines
    assert [line.get_linestyle() for line in outlines] == ["-", ":", "-", ":"]
    for line, (_, row) in zip(outlines, layers.values.iterrows(), strict=True):
        radii = line.get_ydata()
        low, high = scales["entropy"]
        assert radii[0] == radii[-1] == pytest.approx((row["entropy"] - low) / (high - low))
        assert radii[list(INDICATORS).index("local_focus_1")] == pytest.approx(2 * row["local_focus_1"]), (
            "drawn twice as far"
        )
        assert radii[list(INDICATORS).index("sink")] == pytest.approx(row["sink"])
    assert axes.get_theta_direction() == -1 and axes.get_ylim()[1] >= 1


def test_layers_are_told_apart_by_lightness_alone(results: Results) -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    outlines = chart(drawn("figure7", results, form="radar").figure, "standard").lines
    lights = [luminance(line.get_color()) for line in outlines]
    assert lights == sorted(lights, reverse=True) and len(set(lights)) == 4
    assert 1.05 / (lights[0] + 0.05) > 3, "the lightest must be seen on white"


@pytest.mark.parametrize("exhibit", ["figure1", "radar", *slow(*FIGURES[1:])])
def test_no_words_overlap_or_leave_the_figure(exhibit: str, results: Results, holes: Results) -> None:
    options = {"form": "radar"} if exhibit == "radar" else {}
    for source in (results, holes):
        figure = drawn("figure7" if exhibit == "radar" else exhibit, source, **options).figure
        with style.styled():
            assert_words_apart(figure)
        assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 6.5


def test_gaps_are_named_on_the_figure_and_runs_that_are_there_are_drawn(holes: Results) -> None:
    one = drawn("figure1", holes)
    for line in (
        "approximate uniform: not trained yet",
        "nonapproximate uniform: training diverged",
        "fixedseqqk uniform: not analysed yet",
        "staticembqk uniform: a score of layer 3 is not finite",
    ):
        assert line in words(one.figure), line
        assert any(gap.startswith(line) for gap in one.gaps)
    assert {run.split("-")[1] for run in one.runs} == {"standard", "rndembqk"}
    seven = drawn("figure7", holes)
    assert "nothing to draw" in words(seven.figure)
    assert cells(chart(seven.figure, "approximate hybrid (even)")).shape == (4, 8)
    two = drawn("figure2", holes)
    assert "rndembqk hybrid (even): not trained yet" in words(two.figure)
    assert [len(axes.lines) > 3 for axes in two.figure.axes] == [True, False]


def test_no_run_at_all_gives_a_figure_that_says_so(tmp_path: Path) -> None:
    every = {("standard", "uniform"), *((variant, layout) for variant in SIMPLE for layout in ("uniform", "even"))}
    results = analysed(tmp_path, missing=every)
    for exhibit in FIGURES:
        drawing = drawn(exhibit, results)
        assert "nothing to draw" in words(drawing.figure) and "not trained yet" in words(drawing.figure)
        assert not drawing.runs


def test_equal_tables_give_equal_bytes_and_the_record_names_them(results: Results, tmp_path: Path) -> None:
    first, second = (draw("figure2", results.folder, tmp_path / name, dict(MODEL)) for name in ("a", "b"))
    assert tuple(path.name for path in first) == EXHIBITS["figure2"].files
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    record = json.loads(first[-1].read_text())
    assert record["tables"]["scores.parquet"] == sha256_file(results.folder / "scores.parquet")
    assert record["runs"] and "analysis_gaps.parquet" in record["tables"]


def test_outliers_are_marked_and_counted(results: Results) -> None:
    figure = drawn("figure6", results).figure
    uniform, hybrid = figure.axes
    shares = [text.get_text() for text in uniform.texts]
    assert len(shares) == 2 and all(text.endswith(" %") for text in shares), "layers 3 and 4 have outliers"
    assert not hybrid.texts
    assert any(line.get_xdata()[0] == line.get_xdata()[1] and line.is_dashed() for line in uniform.lines)
    assert "±10³" in words(figure)
    assert "±10³" not in words(drawn("figure2", results).figure), "no such scores, no such line"


def test_standard_layers_are_marked_by_shape(results: Results) -> None:
    _, hybrid = drawn("figure2", results).figure.axes
    medians = {round(line.get_ydata()[0]): line.get_marker() for line in hybrid.lines if len(line.get_xdata()) == 1}
    assert medians == {1: "^", 2: "s", 3: "^", 4: "s"}


def test_the_greatest_score_of_each_half_is_printed(results: Results) -> None:
    rows = pd.read_parquet(results.folder / "scores.parquet").query("variant == 'nonapproximate'")
    for axes, layout in zip(drawn("figure6", results).figure.axes, ("uniform", "even"), strict=True):
        top = rows[rows["layout"] == layout].sort_values("maximum").iloc[-1]
        said = re.search(r"at most (\S+), in layer (\d+)", axes.get_title("left"))
        assert said and int(said[2]) == top["layer"]
        factor, _, power = said[1].partition("·10")
        value = float(factor) * 10 ** int(power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")) or 0)
        assert value == pytest.approx(top["maximum"], rel=0.005)
