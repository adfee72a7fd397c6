"""Figures 1, 2, 6, 7 and 8: indicators and scores of attention."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import norm

from deconattn.analysis.histogram import bounds
from deconattn.exhibits import EXHIBITS
from deconattn.report import style
from deconattn.report.collect import collect_analysis
from deconattn.report.draw import Drawing, make
from deconattn.report.indicators import INDICATORS, SHARES, attention_of
from deconattn.report.results import Results
from deconattn.report.ridges import density, linear_width
from tests.conftest import slow
from tests.figure_words import assert_words_apart, words
from tests.make_attention import make_analysis
from tests.make_results import NANO, SIMPLE, make_runs, pairs, report

FIGURES = ("figure1", "figure2", "figure6", "figure7", "figure8")


def analysed(root: Path, skip: Any = (), broken: Any = (), **runs: Any) -> Path:
    """The collected tables of invented runs."""
    folders = make_runs(root, NANO, **runs)
    make_analysis(folders, skip, broken)
    tables = report(root, folders)
    collect_analysis(pairs(folders), tables)
    return tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysed(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysed(
        tmp_path_factory.mktemp("holes"),
        missing={("approximate", "uniform"), ("rndembqk", "even")},
        diverged={("nonapproximate", "uniform")},
        skip={("fixedseqqk", "uniform")},
        broken={("staticembqk", "uniform"), ("nonapproximate", "uniform")},
    )


@cache
def drawn(exhibit: str, tables: Path, **options: str) -> Drawing:
    with style.styled():
        return make(EXHIBITS[exhibit], tables, {"model": "nano", **options})


def chart(figure: Figure, title: str) -> Axes:
    """The chart with this title."""
    (found,) = [axes for axes in figure.axes if title in (axes.get_title(), axes.get_title("left"))]
    return found


def scales_by_hand(tables: Path) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each indicator; shares begin at zero."""
    values = pd.concat([layers.values for layers in attention_of(Results(tables), "nano").values()])
    return {name: (0.0 if name in SHARES else values[name].min(), values[name].max()) for name in INDICATORS}


def test_values_are_means_over_heads_and_seeds(tmp_path: Path) -> None:
    results = Results(analysed(tmp_path, seeds=(0, 1), variants=("approximate",)))
    layers = attention_of(results, "nano")["approximate", "even"]
    rows = pd.read_parquet(results.folder / "attention.parquet").query("layout == 'even'")
    assert len(layers.runs) == 2 and layers.standard.tolist() == [False, True, False, True]
    for layer in (1, 2, 3, 4):
        for name in INDICATORS:
            own = rows.loc[(rows["layer"] == layer) & (rows["indicator"] == name), "value"].tolist()
            assert len(own) == (2 if name == "head_diversity" else 4)
            assert layers.values.loc[layer, name] == pytest.approx(sum(own) / len(own))


def test_heat_maps_show_the_values_on_one_scale_in_all_three_figures(tables: Path) -> None:
    found, scales = attention_of(Results(tables), "nano"), scales_by_hand(tables)
    beside = [("uniform", "uniform"), ("even", "hybrid (even)")]
    wanted = {"figure1": (SIMPLE[1:], beside[:1]), "figure7": (SIMPLE[1:3], beside), "figure8": (SIMPLE[3:], beside)}
    for name, (variants, layouts) in wanted.items():
        charts = {f"{v} {label}": (v, at) for v in variants for at, label in layouts}
        charts["standard"] = ("standard", "uniform")
        figure = drawn(name, tables).figure
        assert sum(len(axes.collections) == 1 and bool(axes.get_title("left")) for axes in figure.axes) == len(charts)
        for title, pair in charts.items():
            axes = chart(figure, title)
            (mesh,) = axes.collections
            rows = found[pair].values.iterrows()
            expected = [[(row[i] - low) / (high - low) for i, (low, high) in scales.items()] for _, row in rows]
            np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(-1, len(INDICATORS)), expected)
            assert axes.get_ylim()[0] < axes.get_ylim()[1], "the first layer is at the bottom"
            squares = [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "s"]
            assert squares == ([[1.5, 3.5]] if pair[1] == "even" else []), "layers that keep standard attention"
    assert "Without an attention map: mlp uniform." in words(drawn("figure1", tables).figure)
    low, high = scales["entropy"]
    assert f"entropy, nats {low:.3g} to {high:.3g}" in words(drawn("figure8", tables).figure)


def test_radar_charts_show_the_values_too(tables: Path) -> None:
    axes = chart(drawn("figure7", tables, form="radar").figure, "approximate hybrid (even)")
    layers = attention_of(Results(tables), "nano")["approximate", "even"]
    low, high = scales_by_hand(tables)["entropy"]
    assert [line.get_linestyle() for line in axes.lines] == ["-", ":", "-", ":"]
    for line, (_, row) in zip(axes.lines, layers.values.iterrows(), strict=True):
        radii = line.get_ydata()
        assert radii[0] == radii[-1] == pytest.approx((row["entropy"] - low) / (high - low))
        assert radii[list(INDICATORS).index("local_focus_1")] == pytest.approx(2 * row["local_focus_1"]), "twice as far"
        assert radii[list(INDICATORS).index("sink")] == pytest.approx(row["sink"])


@pytest.mark.parametrize("exhibit", ["figure1", "radar", *slow(*FIGURES[1:])])
def test_no_words_overlap_or_leave_the_figure(exhibit: str, tables: Path, holes: Path) -> None:
    name, options = ("figure7", {"form": "radar"}) if exhibit == "radar" else (exhibit, {})
    for source in (tables, holes):
        figure = drawn(name, source, **options).figure
        with style.styled():
            assert_words_apart(figure)
        assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 6.5


def test_gaps_are_named_on_the_figure_and_runs_that_are_there_are_drawn(holes: Path) -> None:
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
    assert chart(seven.figure, "approximate hybrid (even)").collections
    two = drawn("figure2", holes)
    assert "rndembqk hybrid (even): not trained yet" in words(two.figure)
    assert [len(axes.lines) > 3 for axes in two.figure.axes] == [True, False]


def test_outliers_are_marked_and_counted_and_the_greatest_score_is_printed(tables: Path) -> None:
    figure = drawn("figure6", tables).figure
    uniform, hybrid = figure.axes
    shares = [text.get_text() for text in uniform.texts]
    assert len(shares) == 2 and all(text.endswith(" %") for text in shares), "layers 3 and 4 have outliers"
    assert not hybrid.texts
    assert any(line.get_xdata()[0] == line.get_xdata()[1] and line.is_dashed() for line in uniform.lines)
    assert "±10³" in words(figure)
    rows = pd.read_parquet(tables / "scores.parquet").query("variant == 'nonapproximate'")
    for axes, layout in zip(figure.axes, ("uniform", "even"), strict=True):
        top = rows[rows["layout"] == layout].sort_values("maximum").iloc[-1]
        said = re.search(r"at most (\S+), in layer (\d+)", axes.get_title("left"))
        assert said and int(said[2]) == top["layer"]
        factor, _, power = said[1].partition("·10")
        value = float(factor) * 10 ** int(power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")) or 0)
        assert value == pytest.approx(top["maximum"], rel=0.005)


def test_standard_layers_of_figure2_are_marked_by_shape(tables: Path) -> None:
    figure = drawn("figure2", tables).figure
    medians = {round(x.get_ydata()[0]): x.get_marker() for x in figure.axes[1].lines if len(x.get_xdata()) == 1}
    assert medians == {1: "^", 2: "s", 3: "^", 4: "s"}
    assert "±10³" not in words(figure), "no such scores, no such line"


def score_rows(counts: np.ndarray, run: str) -> pd.DataFrame:
    low, high = bounds()
    held = np.flatnonzero(counts)
    frame = pd.DataFrame({"bin_low": low[held], "bin_high": high[held], "count": counts[held]})
    return frame.assign(run=run, p25=-2.0, p75=2.0, minimum=low[held[0]], maximum=high[held[-1]])


def heights_of(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Edges in scores and the heights of a ridge between them."""
    linear = linear_width(rows)
    ends = rows["minimum"].min(), rows["maximum"].max()
    steps = np.linspace(*np.arcsinh(np.divide(ends, linear)), 201)
    return linear * np.sinh(steps), density(rows, steps, linear)


def test_the_ridge_of_a_normal_distribution_is_one_hump_that_holds_the_shares_of_its_scores() -> None:
    low, high = bounds()
    counts = np.round(1e7 * np.diff(norm.cdf(np.append(low, high[-1]), scale=2))).astype(int)
    edges, heights = heights_of(score_rows(counts, "a"))
    assert heights.max() == 1.0
    smooth = np.convolve(heights, np.ones(9) / 9, "valid")
    middle = int(np.argmax(smooth))
    assert abs(edges[middle + 4]) < 0.15
    assert (np.diff(smooth[:middle]) > -1e-6).all() and (np.diff(smooth[middle:]) < 1e-6).all()
    inside = (edges[1:] <= 2) & (edges[:-1] >= -2)
    assert heights[inside].sum() / heights.sum() == pytest.approx(0.683, abs=0.03)


def test_seeds_are_pooled_in_a_ridge_and_bins_that_hold_nothing_stay_empty() -> None:
    near, far = np.zeros((2, len(bounds()[0])), int)
    near[363:366] = 10
    far[600] = 30
    edges, heights = heights_of(pd.concat([score_rows(near, "a"), score_rows(far, "b")]))
    start = bounds()[0][600]
    between = (edges[:-1] > 1.0) & (edges[1:] < start)
    assert between.sum() > 50 and heights[between].max() == 0
    assert heights[edges[:-1] >= start].sum() == pytest.approx(heights.sum() / 2, rel=0.2)
