"""Figures 1, 2, 6, 7 and 8 and the tables that they are drawn from."""

from __future__ import annotations

import json
import subprocess
import sys
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

from deconattn.analysis.bins import bounds
from deconattn.analysis.run import analyse_run
from deconattn.errors import UserError
from deconattn.files import sha256_file
from deconattn.report import distributions, radar, style
from deconattn.report.attention import INDICATORS, Scale, attention_of
from deconattn.report.collect import collect
from deconattn.report.collect_analysis import collect_analysis
from deconattn.report.drawing import Drawing
from deconattn.report.exhibits import _module, draw
from deconattn.report.results import Results
from tests.make_attention import make_analysis, save_tiny_model, write_heldout
from tests.make_results import NANO, SIMPLE, make_runs

FIGURES = ("figure1", "figure2", "figure6", "figure7", "figure8")
MODEL = {"model": "nano"}


def report(root: Path, seeds: tuple[int, ...] = (0,), **keywords: Any) -> Results:
    """The collected tables of invented runs; `skip`, `broken` and `layers` are passed on to their analysis."""
    for_analysis = {k: keywords.pop(k) for k in ("skip", "broken", "layers", "outliers") if k in keywords}
    folders = make_runs(root, NANO, seeds=seeds, **keywords)
    make_analysis(folders, **for_analysis)
    collect(folders, root / "report")
    collect_analysis(folders, root / "report")
    return Results(root / "report" / "tables")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return report(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return report(
        tmp_path_factory.mktemp("holes"),
        missing={("approximate", "uniform"), ("rndembqk", "even")},
        diverged={("nonapproximate", "uniform")},
        skip={("fixedseqqk", "uniform")},
        broken={("staticembqk", "uniform"), ("nonapproximate", "uniform")},
    )


def drawn(exhibit: str, results: Results, **options: Any) -> Drawing:
    with style.styled():
        drawing: Drawing = _module(exhibit).draw(results, {**MODEL, **options})
        FigureCanvasAgg(drawing.figure).draw()
    return drawing


def words(figure: Figure) -> str:
    """Everything that is written on a figure, in one line."""
    texts = [*figure.texts, *(text for axes in figure.axes for text in [*axes.texts, axes.title, axes._left_title])]
    return " ".join(" ".join(text.get_text().split()) for text in texts)


def chart(figure: Figure, title: str) -> Axes:
    """The chart whose title begins so."""
    found = [axes for axes in figure.axes if any(text.get_text().startswith(title) for text in axes.texts)]
    assert len(found) == 1, f"{len(found)} charts are called {title!r}"
    return found[0]


def outlines(axes: Axes) -> list[Any]:
    """The closed outlines of layers in a chart: not the web, which is grey, not the reference, which is dotted."""
    lines = [line for line in axes.lines if line.get_zorder() == 3]
    assert all(len(line.get_xdata()) == len(INDICATORS) + 1 for line in lines)
    return lines


# ---- collecting -----------------------------------------------------------------------------------------------------


def test_collecting_keeps_every_value_and_names_what_is_missing(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, NANO, variants=("approximate", "mlp"), missing={("approximate", "even")})
    make_analysis(folders, skip={("standard", "uniform")}, broken={("mlp", "even")})
    gaps = collect_analysis(folders, tmp_path / "report")
    by_run = {gap.split(":")[0].rsplit("-", 2)[0]: gap.split(": ", 1)[1] for gap in gaps}
    assert by_run == {"nano-standard-uniform": "not analysed yet", "nano-mlp-even": "a score of layer 3 is not finite"}
    for name in ("attention", "scores"):
        whole = pd.concat(
            [pq.read_table(path).to_pandas() for f in folders if (path := f / f"{name}.parquet").is_file()]
        )
        collected = pq.read_table(tmp_path / "report" / "tables" / f"{name}.parquet").to_pandas()
        assert len(collected) == len(whole) > 0
        assert collected.select_dtypes("number").sum().to_dict() == pytest.approx(
            whole.select_dtypes("number").sum().to_dict(), nan_ok=True
        )
        assert set(collected["variant"]) == {"approximate"}, (
            "mlp has no map, and nothing stands for a run that is not there"
        )


def test_collecting_refuses_values_of_another_run_and_broken_files(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, NANO, variants=("approximate",))
    make_analysis(folders)
    (folders[1] / "attention.parquet").write_bytes((folders[0] / "attention.parquet").read_bytes())
    with pytest.raises(UserError, match="values of another run"):
        collect_analysis(folders, tmp_path / "report")
    (folders[1] / "attention.parquet").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"attention\.parquet"):
        collect_analysis(folders, tmp_path / "report")


# ---- radar charts ---------------------------------------------------------------------------------------------------


def test_values_are_means_over_heads_and_seeds(tmp_path: Path) -> None:
    results = report(tmp_path, seeds=(0, 1), variants=("approximate",))
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


def test_scale_is_min_max_for_three_and_absolute_for_the_rest() -> None:
    def frame(**values: float) -> pd.DataFrame:
        return pd.DataFrame([{**dict.fromkeys(INDICATORS, 0.25), **values}])

    low, high = frame(entropy=1.0, concentration=7.0), frame(entropy=3.0, concentration=7.0, sink=0.9)
    place = Scale([low, high]).place(frame(entropy=1.5, concentration=7.0, sink=0.6, local_focus_2=0.1)).iloc[0]
    assert place["entropy"] == pytest.approx(0.25)
    assert place["concentration"] == 0.5, "all equal: in the middle"
    assert place["sink"] == 0.6
    assert place["local_focus_2"] == pytest.approx(0.2)


def test_outlines_stand_where_the_values_say(results: Results) -> None:
    figure = drawn("figure1", results).figure
    found = attention_of(results, "nano")
    shown = ("standard", *(variant for variant in SIMPLE if variant != "mlp"))
    for variant in shown:
        lines = outlines(chart(figure, variant))
        scale = Scale([found[v, "uniform"].values for v in shown])
        expected = scale.place(found[variant, "uniform"].values)
        assert len(lines) == len(expected) == 4
        for line, (_, row) in zip(lines, expected.iterrows(), strict=True):
            points = np.column_stack(line.get_data())
            assert np.linalg.norm(points[:-1], axis=1) == pytest.approx(row[list(INDICATORS)].to_numpy(float))
            assert points[0] == pytest.approx([0, row["entropy"]]), "entropy points upwards"
            assert points[2] == pytest.approx([row["head_diversity"], 0], abs=1e-12), "and the others follow clockwise"
    assert "Without an attention map: mlp uniform." in words(figure)


def test_the_outermost_ring_grows_with_an_indicator_beyond_one(results: Results) -> None:
    values = attention_of(results, "nano")["standard", "uniform"].values.copy()
    values.loc[2, "local_focus_0"] = 0.8
    assert radar.reach([values], Scale([values])) == 1.75, "0.8 is drawn at 1.6"
    values.loc[2, "local_focus_0"] = 0.1
    assert radar.reach([values], Scale([values])) == 1.0


def test_uniform_and_hybrid_differ_without_colour(results: Results) -> None:
    figure = drawn("figure7", results).figure
    for variant in ("approximate", "nonapproximate"):
        uniform = outlines(chart(figure, f"{variant}\nuniform"))
        replaced = outlines(chart(figure, f"{variant}\nhybrid (even): replaced"))
        standard = outlines(chart(figure, f"{variant}\nhybrid (even): standard"))
        assert (len(uniform), len(replaced), len(standard)) == (4, 2, 2)
        assert {line.get_linestyle() for line in uniform} == {"-"}
        assert all(line.is_dashed() for line in [*replaced, *standard])
    eight = words(drawn("figure8", results).figure)
    assert all(v in eight for v in ("rndembqk", "fixedseqqk", "staticembqk")) and "approximate" not in eight


def test_pairs_show_each_kind_of_layer_on_one_scale_with_the_standard_model(results: Results) -> None:
    figure = drawn("figure7", results).figure
    found = attention_of(results, "nano")
    mean = found["standard", "uniform"].values.mean()
    entropies = [mean["entropy"]]
    for variant in ("approximate", "nonapproximate"):
        entropies += [*found[variant, "uniform"].values["entropy"], *found[variant, "even"].values["entropy"]]
    low, high = min(entropies), max(entropies)
    for variant in ("approximate", "nonapproximate"):
        hybrid = found[variant, "even"].values["entropy"]
        for title, expected in (
            ("uniform", found[variant, "uniform"].values["entropy"]),
            ("hybrid (even): replaced", hybrid.loc[[1, 3]]),
            ("hybrid (even): standard", hybrid.loc[[2, 4]]),
        ):
            axes = chart(figure, f"{variant}\n{title}")
            heights = [line.get_ydata()[0] for line in outlines(axes)]
            assert heights == pytest.approx([(value - low) / (high - low) for value in expected]), title
            (reference,) = [line for line in axes.lines if line.get_zorder() == 5]
            assert reference.get_ydata()[0] == pytest.approx((mean["entropy"] - low) / (high - low))


def test_the_standard_model_counts_for_the_scale_of_pairs(tmp_path: Path) -> None:
    results = report(tmp_path, variants=("approximate",))
    path = results.folder / "attention.parquet"
    table = pq.read_table(path).to_pandas()
    table.loc[(table["variant"] == "standard") & (table["indicator"] == "entropy"), "value"] += 50
    table.to_parquet(path)
    axes = chart(drawn("figure7", results).figure, "approximate\nuniform")
    (reference,) = [line for line in axes.lines if line.get_zorder() == 5]
    assert reference.get_ydata()[0] == 1.0
    assert max(line.get_ydata()[0] for line in outlines(axes)) < 0.2


def test_layers_are_told_apart_by_lightness_alone() -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for layers in (2, 4, 12, 28):
        lights = [luminance(colour) for colour in radar.layer_colours(layers)]
        assert all(earlier > later for earlier, later in zip(lights, lights[1:], strict=False))
        assert 1.05 / (lights[0] + 0.05) > 3, "the lightest must be seen on white"


# ---- distributions --------------------------------------------------------------------------------------------------


def score_rows(counts: np.ndarray, run: str = "a", **values: float) -> pd.DataFrame:
    low, high = bounds()
    held = np.flatnonzero(counts)
    layer = {
        "run": run, "layer": 1, "standard": False, "total": counts.sum(), "share_beyond_1000": 0.0,
        "minimum": low[held[0]], "maximum": high[held[-1]], "p50": 0.0,
        **dict.fromkeys(("p0_1", "p1", "p5", "p25"), -2.0),
        **dict.fromkeys(("p75", "p95", "p99", "p99_9"), 2.0),
        **values,
    }  # fmt: skip
    return pd.DataFrame({"bin_low": low[held], "bin_high": high[held], "count": counts[held]}).assign(**layer)


def normal_counts(spread: float, total: int = 10_000_000) -> np.ndarray:
    from math import erf

    low, high = bounds()
    below = [0.5 * (1 + erf(x / spread / 2**0.5)) for x in np.append(low, high[-1])]
    return np.round(total * np.diff(below)).astype(int)


def test_one_hump_is_drawn_as_one_hump_at_its_place() -> None:
    (ridge,) = distributions.ridges(score_rows(normal_counts(3.0)))
    edges, heights = distributions.density(ridge, distributions.axis_of([ridge]))
    assert heights.max() == 1.0 and len(edges) == len(heights) + 1
    smooth = np.convolve(heights, np.ones(9) / 9, "valid")
    middle = int(np.argmax(smooth))
    assert abs(edges[middle + 4]) < 0.15
    assert (np.diff(smooth[:middle]) > -1e-6).all() and (np.diff(smooth[middle:]) < 1e-6).all()


def test_a_ridge_holds_the_shares_of_its_scores() -> None:
    (ridge,) = distributions.ridges(score_rows(normal_counts(2.0)))
    axis = distributions.axis_of([ridge])
    edges, heights = distributions.density(ridge, axis)
    inside = (edges[1:] <= axis.place(2.0)) & (edges[:-1] >= axis.place(-2.0))
    assert heights[inside].sum() / heights.sum() == pytest.approx(0.683, abs=0.03)


def test_seeds_are_pooled_and_bins_that_hold_nothing_stay_empty() -> None:
    near, far = np.zeros(len(bounds()[0]), int), np.zeros(len(bounds()[0]), int)
    near[363:366] = 10
    far[600] = 30
    (ridge,) = distributions.ridges(
        pd.concat([score_rows(near, "a", p50=1.0), score_rows(far, "b", p50=3.0, share_beyond_1000=1.0)])
    )
    assert ridge.counts.sum() == 60 and ridge.quantiles["p50"] == 2.0 and ridge.beyond == 0.5
    assert ridge.maximum == bounds()[1][600]
    axis = distributions.axis_of([ridge])
    edges, heights = distributions.density(ridge, axis)
    between = (edges[:-1] > axis.place(1.0)) & (edges[1:] < axis.place(bounds()[0][600]))
    assert between.sum() > 50 and heights[between].max() == 0


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


# ---- all ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exhibit", FIGURES)
def test_nothing_that_is_written_leaves_the_figure(exhibit: str, results: Results, holes: Results) -> None:
    for source in (results, holes):
        figure = drawn(exhibit, source).figure
        figure.set_dpi(200)
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
        texts += [text for axes in figure.axes if axes.axison for text in axes.get_xticklabels()]
        for artist in [*(text for text in texts if text.get_text()), *figure.legends]:
            box, edge = artist.get_window_extent(renderer), figure.bbox
            assert box.x0 >= -1 and box.x1 <= edge.x1 + 1 and box.y0 >= -1 and box.y1 <= edge.y1 + 1, artist


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
    assert len(outlines(chart(seven.figure, "approximate\nhybrid (even): replaced"))) == 2
    two = drawn("figure2", holes)
    assert "rndembqk hybrid (even): not trained yet" in words(two.figure)
    assert [len(axes.lines) > 3 for axes in two.figure.axes] == [True, False]


def test_no_run_at_all_gives_a_figure_that_says_so(tmp_path: Path) -> None:
    every = {("standard", "uniform"), *((variant, layout) for variant in SIMPLE for layout in ("uniform", "even"))}
    results = report(tmp_path, missing=every)
    for exhibit in FIGURES:
        drawing = drawn(exhibit, results)
        assert "nothing to draw" in words(drawing.figure) and "not trained yet" in words(drawing.figure)
        assert not drawing.runs


@pytest.mark.parametrize("exhibit", FIGURES)
def test_equal_tables_give_equal_bytes_and_the_record_names_them(
    exhibit: str, results: Results, tmp_path: Path
) -> None:
    first, second = (draw(exhibit, results.folder, tmp_path / name, dict(MODEL)) for name in ("a", "b"))
    assert [path.name for path in first] == [f"{exhibit}.{kind}" for kind in ("svg", "pdf", "png", "json")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    record = json.loads(first[-1].read_text())
    table = "scores.parquet" if exhibit in ("figure2", "figure6") else "attention.parquet"
    assert record["tables"][table] == sha256_file(results.folder / table)
    assert record["runs"] and "analysis_gaps.parquet" in record["tables"]


def test_the_whole_way_from_a_model_to_the_figures(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, NANO)
    heldout = write_heldout(
        tmp_path / "heldout.parquet", [[k * 5 % 60 + 1 for k in range(n)] + [0] for n in (40, 25, 60)]
    )
    for folder in folders:
        model = json.loads((folder / "spec.json").read_text())["model"]
        save_tiny_model(folder / "model", model["variant"], model["layout"])
        analyse_run(folder, heldout, context_length=16, sequences=4, device="cpu")
    collect(folders, tmp_path / "report")
    assert collect_analysis(folders, tmp_path / "report") == []
    for exhibit in FIGURES:
        record = json.loads(
            draw(exhibit, tmp_path / "report/tables", tmp_path / "report/figures", dict(MODEL))[-1].read_text()
        )
        assert record["gaps"] == []
        assert len(record["runs"]) == {"figure1": 6, "figure2": 2, "figure6": 2, "figure7": 5, "figure8": 7}[exhibit]


def test_figures_import_no_torch() -> None:
    code = "import sys; from deconattn.report import {}, collect_analysis; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code.format(", ".join(FIGURES))], check=True, cwd=Path(__file__).resolve().parent.parent
    )
