"""Figures of quality against context length and against cost: the values drawn are the tables', and what is missing is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from deconattn.analysis.run_costs import write_run_costs
from deconattn.config import ModelConfig
from deconattn.exhibits import EXHIBITS
from deconattn.report import style
from deconattn.report.draw import Drawing, make
from deconattn.report.pareto_figure import WIDEST, front
from tests.conftest import slow
from tests.figure_words import assert_words_apart, words
from tests.make_results import NANO, PAPER_SIZES, SIMPLE, Size, make_runs, report

SHAPES = {"nano": (64, 192, 3, 2), "70m": (512, 2048, 6, 8), "160m": (768, 3072, 12, 12), "500m": (896, 4864, 24, 14)}
SIZES = [replace(size, steps=40, tasks=("arc_easy", "sciq", "wikitext"), lengths=(2048,)) for size in PAPER_SIZES]
BEYOND = replace(SIZES[2], lengths=(512, 1024, 2048, 4096))


def collected(root: Path, sizes: Sequence[Size], **how: Any) -> Path:
    """Collected tables of these sizes, and what their runs cost, of real shapes."""
    folders = [folder for size in sizes for folder in make_runs(root, size, **how)]
    tables = report(root, folders)
    for folder in (trained := [folder for folder in folders if folder.is_dir()]):
        model = json.loads((folder / "spec.json").read_text())["model"]
        hidden, inner, layers, heads = SHAPES[model["name"]]
        config = ModelConfig(
            50_304, hidden, inner, layers, heads, max_position_embeddings=model["max_position_embeddings"],
            variant=model["variant"], layout=model["layout"],
        )  # fmt: skip
        (folder / "model").mkdir()
        (folder / "model/config.json").write_text(json.dumps(config.to_dict()))
    lengths = {size.name: size.context_length for size in sizes}
    write_run_costs(trained, lengths, tables / "run_costs.parquet")
    return tables


GRIDS: dict[str, tuple[Sequence[Size], dict[str, Any]]] = {
    "seeds": ([BEYOND], {"variants": (*SIMPLE, "softplus", "softplus_reweighted"), "seeds": (0, 1, 2)}),
    "paper": (SIZES, {}),
    "holes": (
        [replace(NANO, steps=30)],
        {
            "missing": [("rndembqk", "uniform")],
            "diverged": [("nonapproximate", "uniform")],
            "unevaluated": [("mlp", "even")],
        },
    ),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One size with three seeds, lengths beyond training and variants of one's own; three sizes; a small one with holes."""
    return {name: collected(tmp_path_factory.mktemp(name), sizes, **how) for name, (sizes, how) in GRIDS.items()}


CASES: dict[tuple[str, str], dict[str, Any]] = {
    ("figure_lengths", "seeds"): {"model": "500m"},
    ("figure_lengths", "holes"): {"model": "nano", "task": "heldout"},
    ("figure_pareto", "seeds"): {"models": ["500m"]},
    ("figure_pareto", "paper"): {"models": [size.name for size in SIZES]},
    ("figure_pareto", "holes"): {"models": ["nano"]},
}


def drawn(exhibit: str, name: str, tables: dict[str, Path]) -> Drawing:
    with style.styled():
        return make(EXHIBITS[exhibit], tables[name], CASES[exhibit, name])


SLOW = [case for case in CASES if case[1] in ("seeds", "paper")]


@pytest.mark.parametrize(("exhibit", "name"), [*(case for case in CASES if case not in SLOW), *slow(*SLOW)])
def test_all_words_can_be_read(exhibit: str, name: str, tables: dict[str, Path]) -> None:
    figure = drawn(exhibit, name, tables).figure
    with style.styled():
        assert_words_apart(figure)
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 6.5


def looks(axes: Axes) -> list[tuple[Any, ...]]:
    """Marker, fill and points of every line of dots."""
    found = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    return [(x.get_marker(), x.get_fillstyle(), x.get_markerfacecolor(), *map(list, x.get_data())) for x in found]


def look(variant: str, layout: str, mode: str = "full") -> tuple[Any, ...]:
    own = style.dot(variant, layout != "uniform")
    if mode == "reweighted":
        return own["marker"], "bottom", own["color"]
    return own["marker"], "full", own["markerfacecolor"]


def test_lines_over_length_are_the_evaluations(tables: dict[str, Path]) -> None:
    """A line for each model and for softplus re-weighted, of means over seeds with their range; standard in both panels."""
    rows = pd.read_parquet(tables["seeds"] / "evaluation.parquet")
    rows = rows[rows["metric"].eq("word_perplexity") & rows["task"].eq("wikitext")]
    rows = rows[rows["mode"].isin(["full", "reweighted"])]
    figure = drawn("figure_lengths", "seeds", tables).figure
    for axes, layout in zip(figure.axes, ("uniform", "even"), strict=True):
        own = rows[rows["layout"].eq(layout) | rows["variant"].eq("standard")]
        expected, ranges = [], []
        for (variant, at, mode), line in own.groupby(["variant", "layout", "mode"]):
            values = line.groupby("context_length")["value"].agg(["mean", "min", "max"])
            expected.append((*look(variant, at, mode), list(values.index), pytest.approx(list(values["mean"]))))
            ranges += [[[n, low], [n, high]] for n, _, low, high in values.itertuples()]
        assert len(expected) == 10 and sorted(map(len, (x[3] for x in expected))) == [3, 3, *[4] * 8]
        found = looks(axes)
        assert len(found) == len(expected) and all(line in found for line in expected)
        lines = [lines for lines in axes.collections if hasattr(lines, "get_segments")]
        segments = [segment.tolist() for each in lines for segment in each.get_segments()]
        assert sorted(segments) == [pytest.approx(np.array(each)) for each in sorted(ranges)]
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert len(dotted) == 1, "softplus, re-weighted"
        assert [2048, 2048] in [list(line.get_xdata()) for line in axes.lines], "the length in training"


def test_what_has_no_value_at_a_length_is_said_with_its_reason(tables: dict[str, Path], tmp_path: Path) -> None:
    gaps = drawn("figure_lengths", "seeds", tables).gaps
    side = ", ".join(f"{v} {at}" for v in ("fixedseqqk", "rndembqk") for at in ("hybrid (even)", "uniform"))
    assert gaps == [f"{side}: no map beyond the 2,048 positions of a side stream (at 4,096)"]
    assert make(EXHIBITS["table4"], tables["seeds"], {"model": "500m"}).gaps[-1] == gaps[0]
    shutil.copytree(tables["seeds"], tmp_path, dirs_exist_ok=True)
    rows = pd.read_parquet(tmp_path / "evaluation.parquet")
    text = rows["metric"].eq("word_perplexity") & rows["mode"].eq("full") & rows["layout"].eq("uniform")
    one = text & rows["context_length"].eq(4096) & rows["seed"].eq(1)
    rows.loc[one & rows["variant"].eq("mlp"), "value"] = np.inf
    rows.loc[text & rows["variant"].eq("nonapproximate") & rows["context_length"].eq(512), "value"] = None
    rows.loc[text & rows["variant"].eq("approximate"), "value"] *= 1e4
    rows = rows[~(text & rows["variant"].eq("standard") & rows["context_length"].eq(1024))]
    rows.to_parquet(tmp_path / "evaluation.parquet")
    drawing = drawn("figure_lengths", "seeds", {"seeds": tmp_path})
    assert sorted(set(drawing.gaps) - set(gaps)) == [
        "mlp uniform: no finite value of some seeds (at 4,096)",
        "nonapproximate uniform: no finite value (at 512)",
        "standard: not evaluated (at 1,024)",
    ]
    assert "Above the panel: approximate uniform (up to " in words(drawing.figure)
    assert drawn("figure_lengths", "holes", tables).gaps == [
        "nonapproximate uniform: training diverged (after 10 steps)",
        "rndembqk uniform: not trained yet",
        "mlp hybrid (even): not evaluated yet",
    ]
    with style.styled():
        nothing = make(EXHIBITS["figure_lengths"], tables["holes"], {"model": "nano", "task": "wikitext"})
    assert nothing.gaps[-1] == "no model has a value on WikiText" and "nothing to draw" in words(nothing.figure)


@pytest.mark.parametrize("name", ["seeds", "paper"])
def test_points_and_front_over_costs_are_the_tables(name: str, tables: dict[str, Path]) -> None:
    models = CASES["figure_pareto", name]["models"]
    place = ["model", "variant", "layout"]
    rows = pd.read_parquet(tables[name] / "evaluation.parquet").query("mode == 'full' and context_length == 2048")
    text = rows.query("task == 'wikitext' and metric == 'word_perplexity'").groupby(place)["value"].mean()
    tasks = rows[rows["metric"].eq("acc") & rows["task"].ne("lambada_openai")]
    costs = pd.read_parquet(tables[name] / "run_costs.parquet").groupby(place)[["training_flops", "state_bytes"]].mean()
    figure = drawn("figure_pareto", name, tables).figure
    for row, values, best in ((0, text, 1), (1, 100 * tasks.groupby(place)["value"].mean(), -1)):
        for axes, cost in zip(figure.axes[2 * row : 2 * row + 2], costs, strict=True):
            points = costs.join(values.rename("value")).astype(float)
            found = {(mark, fill, x[0], y[0]) for mark, _, fill, x, y in looks(axes)}
            unit = 1000.0 ** (np.log10(points[cost].max()) // 3)
            standard = points["value"].xs("standard", level="variant").max()
            edge = WIDEST["word_perplexity"] * standard if best > 0 else np.inf
            for (_, variant, at), (price, value) in zip(points.index, points[[cost, "value"]].to_numpy(), strict=True):
                mark, _, fill = look(variant, at)
                wanted = (price / unit if price else axes.get_xticks()[0], 1 if value > edge else value)
                assert any((m, f) == (mark, fill) and (x, y) == pytest.approx(wanted) for m, f, x, y in found)
            assert len(looks(axes)) == len(points) == len(models) * (13 if name == "paper" else 17)
            losses = best * points["value"]
            beaten = [((points[cost] <= c) & (losses < v) | (points[cost] < c) & (losses <= v)).any()
                      for c, v in zip(points[cost], losses, strict=True)]  # fmt: skip
            (line,) = [x for x in axes.lines if x.get_drawstyle() == "steps-post"]
            on_it = sorted(points["value"][~np.array(beaten)], reverse=best > 0)
            assert list(line.get_ydata())[:-1] == pytest.approx(on_it)


def test_a_front_has_what_nothing_beats() -> None:
    costs, losses = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 0.0]), np.array([1.0, 5.0, 3.0, 2.0, 1.0, 9.0])
    assert front(costs, losses).tolist() == [5, 1, 3, 0], (
        "of equal costs the better one, of equal losses the cheaper one"
    )
