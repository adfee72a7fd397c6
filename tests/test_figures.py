"""Figures: the values drawn are the runs', no words overlap, colours hold for every eye and in grey print."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from deconattn.errors import UserError
from deconattn.layouts import LAYOUTS
from deconattn.report import figure3, figure4, figure5, style
from deconattn.report.collect import collect
from deconattn.report.curves import smooth
from deconattn.report.drawing import Drawing
from deconattn.report.exhibits import EXHIBITS, draw, options_of, outputs_of
from deconattn.report.gaps import outside_grid
from deconattn.report.names import FAMILIES
from deconattn.report.palette import COLOURS, MARKERS, OWN_COLOUR
from deconattn.report.provenance import repository_state
from deconattn.report.results import Results
from tests.figure_words import assert_words_apart, beyond
from tests.make_results import NANO, NINE_LAYOUTS, PAPER_SIZES, SIMPLE, make_baselines, make_runs

MODULES = {"figure3": figure3, "figure4": figure4, "figure5": figure5}
HOLES: dict[str, Any] = {
    "missing": [("rndembqk", "uniform"), ("fixedseqqk", "even")],
    "diverged": [("nonapproximate", "uniform")],
    "unevaluated": [("mlp", "even")],
}


# Twelve steps, perplexities above 100,000 that hardly differ, no uniform model but standard.
TINY = {
    "size": replace(NANO, steps=12, tokens=1536, loss=9.2, tasks=("copa", "heldout")),
    "variants": ("rndembqk",),
    "layouts": ("even",),
}
NAMES = ("demo", "holes", "seeds", "paper", "tiny")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Collected tables of a demo, one with holes, one with three seeds, one in the paper's shape, a tiny one."""
    found = {}
    for name in NAMES:
        root = tmp_path_factory.mktemp(name)
        if name == "paper":
            folders = [folder for size in PAPER_SIZES for folder in make_runs(root, size)]
            more = make_runs(root, PAPER_SIZES[2], ("rndembqk", "nonapproximate"), NINE_LAYOUTS)
            folders += [folder for folder in more if folder not in folders]
        else:
            own = {"holes": HOLES, "seeds": {"seeds": (0, 1, 2)}, "tiny": TINY}.get(name, {})
            folders = make_runs(root, **own)
        collect(folders, root / "report", make_baselines(root / "baselines.parquet"))
        found[name] = root / "report" / "tables"
    return found


def options(exhibit: str, name: str) -> dict[str, Any]:
    models = [size.name for size in PAPER_SIZES] if name == "paper" else ["nano"]
    return {"model": models[-1]} if exhibit == "figure3" else {"models": models}


def drawn(exhibit: str, folder: Path, name: str) -> Drawing:
    with style.styled():
        return MODULES[exhibit].draw(Results(folder), options(exhibit, name))


CASES = [(e, n) for e in MODULES for n in NAMES]


@pytest.mark.parametrize(("exhibit", "name"), CASES)
def test_no_words_overlap_or_leave_the_figure(exhibit: str, name: str, tables: dict[str, Path]) -> None:
    with style.styled():
        figure = MODULES[exhibit].draw(Results(tables[name]), options(exhibit, name)).figure
        assert_words_apart(figure)


@pytest.mark.parametrize("exhibit", MODULES)
def test_every_text_can_be_read_at_the_printed_size(exhibit: str, tables: dict[str, Path]) -> None:
    figure = drawn(exhibit, tables["paper"], "paper").figure
    assert figure.get_figwidth() in (style.SINGLE_COLUMN, style.DOUBLE_COLUMN)
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text().strip()) >= 6.5


def test_figure4_shows_the_values_of_the_runs(tables: dict[str, Path]) -> None:
    figure = drawn("figure4", tables["demo"], "demo").figure
    values = pd.read_parquet(tables["demo"] / "evaluation.parquet").query("mode == 'full'")
    columns = [("heldout", "word_perplexity", 1), ("arc_easy", "acc", 100), ("sciq", "acc", 100)]
    for axes, (task, metric, scale) in zip(figure.axes[:3], columns, strict=True):
        wanted = values[(values["task"] == task) & (values["metric"] == metric)]
        expected = sorted((_style(row.variant, row.layout), scale * row.value) for row in wanted.itertuples())
        assert _dots(axes) == [(look, pytest.approx(value)) for look, value in expected]
        assert len(expected) == 13


def test_figure4_shows_the_papers_values_in_panels_of_their_own(tables: dict[str, Path]) -> None:
    figure = drawn("figure4", tables["demo"], "demo").figure
    assert len(figure.axes) == 6
    arc = _dots(figure.axes[4])
    assert (_style("standard", "uniform"), pytest.approx(41.5)) in arc
    assert (_style("mlp", "even"), pytest.approx(37.5)) in arc and len(arc) == 13
    words = _words(figure)
    assert "Published (arXiv:2510.11602v1): 500m" in words and "another size, other data" in words
    assert "Ours: nano, 0.41M parameters, 2.6M tokens, 1 seed" in words and "90,000 →" in words


def test_figure3_shows_nine_layouts_and_the_standard_line(tables: dict[str, Path]) -> None:
    figure = drawn("figure3", tables["paper"], "paper").figure
    values = pd.read_parquet(tables["paper"] / "evaluation.parquet").query("model == '500m' and mode == 'full'")
    wikitext = values.query("task == 'wikitext' and metric == 'word_perplexity' and context_length == 2048")
    dots = _dots(figure.axes[0])
    own = wikitext[wikitext["variant"].isin(["rndembqk", "nonapproximate"]) & (wikitext["layout"] != "uniform")]
    expected = sorted((_style(row.variant, row.layout), row.value) for row in own.itertuples())
    assert dots == [(look, pytest.approx(value)) for look, value in expected] and len(dots) == 18
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    standard = wikitext.query("variant == 'standard'")["value"].item()
    assert [line.get_xdata()[0] for line in dotted] == [pytest.approx(standard)]
    assert set(figure3.NINE) == set(LAYOUTS) - {"uniform"} and len(figure3.NINE) == 9


def test_figure3_pictures_the_layers(tables: dict[str, Path]) -> None:
    axes = drawn("figure3", tables["paper"], "paper").figure.axes[0]
    cells = [p for p in axes.patches if p.get_height() == pytest.approx(0.44)]
    assert len(cells) == 9 * 24
    row = [cell for cell in cells if round(cell.get_y() + 0.22) == figure3.NINE.index("quarter")]
    dark = [n for n, cell in enumerate(sorted(row, key=lambda c: c.get_x()), 1) if sum(cell.get_facecolor()[:3]) < 1]
    assert dark == [4, 8, 12, 16, 20, 24]


def test_figure5_ends_in_the_losses_of_the_runs(tables: dict[str, Path]) -> None:
    words = _words(drawn("figure5", tables["demo"], "demo").figure)
    for folder in (tables["demo"].parent.parent / "runs").iterdir():
        curve = pd.read_parquet(folder / "train.parquet")
        variant = folder.name.split("-")[1]
        assert f"{variant} {curve['loss'].iloc[-25:].mean():.2f}" in words


def test_figure5_draws_uniform_solid_and_hybrid_dashed(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["demo"], "demo").figure
    for axes, dashed in zip(figure.axes[:2], (False, True), strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) > 50 and line.get_linewidth() > 1]
        assert len(curves) == 7
        for line in curves:
            standard = line.get_color() == COLOURS["standard"]
            assert (line.get_linestyle() != "-") == (dashed and not standard)


def test_figure5_smooths_over_the_seeds_and_shows_their_range(tables: dict[str, Path]) -> None:
    figure = drawn("figure5", tables["seeds"], "seeds").figure
    assert len(figure.axes[0].collections) == 7 and "3 seeds" in _words(figure)
    words = _words(figure)
    runs = pd.read_parquet(tables["seeds"] / "runs.parquet").query("variant == 'mlp' and layout == 'uniform'")
    assert f"mlp {runs['final_train_loss'].mean():.2f}" in words and len(runs) == 3


@pytest.mark.parametrize("exhibit", ["figure4", "figure5"])
def test_what_is_missing_is_said_in_the_figure_and_not_drawn(exhibit: str, tables: dict[str, Path]) -> None:
    drawing = drawn(exhibit, tables["holes"], "holes")
    words = _words(drawing.figure)
    assert "Gaps:" in words and "rndembqk uniform: not trained yet" in words
    assert "fixedseqqk hybrid (even): not trained yet" in words and "diverged" in words
    assert any("rndembqk uniform" in gap for gap in drawing.gaps)
    assert ("mlp hybrid (even): not evaluated yet" in words) == (exhibit == "figure4")
    if exhibit == "figure4":
        looks = [look for look, _ in _dots(drawing.figure.axes[1])]
        assert len(looks) == 13 - 4 and _style("rndembqk", "uniform") not in looks
    assert len(drawing.runs) == 11 and not any("rndembqk-uniform" in run for run in drawing.runs)
    assert not drawn(exhibit, tables["demo"], "demo").gaps
    assert "Gaps:" not in _words(drawn(exhibit, tables["demo"], "demo").figure)


def test_layouts_outside_the_grid_are_said(tables: dict[str, Path]) -> None:
    drawing = drawn("figure3", tables["demo"], "demo")
    assert drawing.gaps == ["not in this grid: odd, top, middle, bottom, quarter, first, last, bilateral"]
    results = Results(tables["paper"])
    assert outside_grid(results, "500m", ["mlp", "rndembqk"], ["even", "odd"]) == "not in this grid: mlp odd"
    assert outside_grid(results, "500m", ["rndembqk"], NINE_LAYOUTS) is None


def test_a_model_without_any_finished_run_is_drawn_empty(tmp_path: Path) -> None:
    every = [("standard", "uniform"), *itertools.product(SIMPLE, ("uniform", "even"))]
    collect(make_runs(tmp_path, missing=every), tmp_path / "report")
    for exhibit in MODULES:
        paths = draw(exhibit, tmp_path / "report" / "tables", tmp_path / "out", options(exhibit, "demo"))
        assert all(path.stat().st_size > 100 for path in paths)


@pytest.mark.parametrize("steps", [1, 12])
def test_a_training_of_a_few_steps_is_drawn(steps: int, tmp_path: Path) -> None:
    short = replace(NANO, steps=steps, tokens=steps * 128)
    folders = make_runs(tmp_path, short, variants=("mlp", "rndembqk"))
    longer = make_runs(tmp_path, replace(NANO, steps=90, tokens=90 * 128), variants=("mlp",), layouts=("even",))
    collect(folders, tmp_path / "report")
    assert folders[3] == longer[1]
    for exhibit in MODULES:
        for path in draw(exhibit, tmp_path / "report" / "tables", tmp_path / "out", options(exhibit, "demo")):
            assert path.stat().st_size > 100


@pytest.mark.parametrize("exhibit", MODULES)
def test_equal_tables_give_equal_bytes(exhibit: str, tables: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("first", "second"):
        draw(exhibit, tables["demo"], tmp_path / folder, options(exhibit, "demo"))
    for name in outputs_of(exhibit):
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(outputs_of(exhibit))


def test_vector_files_hold_text_as_text(tables: dict[str, Path], tmp_path: Path) -> None:
    draw("figure4", tables["demo"], tmp_path, {"models": ["nano"]})
    svg = (tmp_path / "figure4.svg").read_text()
    assert "<text" in svg and all(f">{variant}</text>" in svg for variant in COLOURS)
    assert "<dc:date>" not in svg
    pdf = (tmp_path / "figure4.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_provenance_names_runs_data_and_tables(tables: dict[str, Path], tmp_path: Path) -> None:
    draw("figure5", tables["holes"], tmp_path, {"models": ["nano"]})
    record = json.loads((tmp_path / "figure5.json").read_text())
    root = tables["holes"].parent.parent
    assert record["runs"] == sorted(folder.name for folder in (root / "runs").iterdir())
    manifest = root / "tokens" / "invented-128" / "manifest.json"
    assert record["data"] == {"invented-128": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    training = hashlib.sha256((tables["holes"] / "training.parquet").read_bytes()).hexdigest()
    assert record["tables"]["training.parquet"] == training
    assert record["options"] == {"models": ["nano"]} and len(record["gaps"]) == 3
    assert {"deconattn", "matplotlib", "numpy", "pandas", "pyarrow", "python"} <= set(record["versions"])
    assert record["packages"] == ["torch 2.13.0"]  # of the runs: what made the numbers, not only what drew them


def test_the_commit_is_the_repositorys_or_null(tmp_path: Path) -> None:
    assert repository_state(tmp_path) == (None, None)

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert repository_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("two")
    assert repository_state(tmp_path) == (git("rev-parse", "HEAD"), True)


@pytest.mark.parametrize(
    ("exhibit", "given_options", "expected"),
    [
        ("figure55", {}, "did you mean 'figure5'"),
        ("figure5", {"modles": ["nano"]}, "did you mean 'models'"),
        ("figure5", {}, "option 'models' is missing"),
        ("figure5", {"models": ["nana"]}, "did you mean 'nano'"),
        ("table1", {"model": "500m"}, "'500m' is not a model"),
    ],
)
def test_wrong_requests_are_one_clear_line(
    exhibit: str, given_options: dict[str, Any], expected: str, tables: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        draw(exhibit, tables["demo"], tmp_path, given_options)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_absent_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"runs\.parquet: no such file"):
        draw("figure5", tmp_path, tmp_path, {"models": ["nano"]})


def test_every_exhibit_is_a_module_that_explains_its_options() -> None:
    assert {"table1", "table2", "table3", "table4", "figure3", "figure4", "figure5"} <= set(EXHIBITS)
    for exhibit in ("table1", "table4", *MODULES):
        assert options_of(exhibit)


# Simulation of dichromacy after Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
EVERY = {**COLOURS, "own": OWN_COLOUR}


def _linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_variants_are_told_apart_by_every_eye(deficiency: str) -> None:
    seen = {name: _lab(DEFICIENCIES[deficiency] @ _linear(colour)) for name, colour in EVERY.items()}
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 15, (first, second)


def test_colours_stand_out_from_white_and_within_a_family_in_grey() -> None:
    for colour in EVERY.values():
        assert 1.05 / (_linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05) > 3
    for family in FAMILIES:
        for first, second in itertools.combinations(family.variants, 2):
            assert abs(_lab(_linear(COLOURS[first]))[0] - _lab(_linear(COLOURS[second]))[0]) > 15
    assert len(set(MARKERS.values())) == len(MARKERS) == len(COLOURS)


def test_ticks_of_one_axis_read_differently(tables: dict[str, Path]) -> None:
    for exhibit, name in CASES:
        figure = drawn(exhibit, tables[name], name).figure
        FigureCanvasAgg(figure).draw()
        hidden = beyond(figure)
        for axis in figure.findobj(Axis):
            labels = [t.get_text() for t in axis.get_majorticklabels() if id(t) not in hidden and t.get_text()]
            assert len(set(labels)) == len(labels), (exhibit, name, labels)


@given(st.floats(1, 1e9), st.floats(1.01, 1e4))
def test_a_logarithmic_axis_has_a_few_round_ticks_within_it(low: float, ratio: float) -> None:
    ticks = figure4.log_ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 5 and ticks == sorted(set(ticks))
    assert all(low <= tick <= low * ratio for tick in ticks)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).map(sorted),
    st.floats(0.001, 0.3),
)
def test_labels_are_moved_apart_in_order_and_no_further_than_need_be(positions: list[float], gap: float) -> None:
    placed = style.spread_out(positions, gap, 0.0, 1.0)
    room = min(gap, 1.0 / max(1, len(positions) - 1))
    assert all(b - a >= room - 1e-9 for a, b in itertools.pairwise(placed))
    assert -1e-9 <= min(placed) and max(placed) <= 1 + 1e-9
    if all(b - a >= gap for a, b in itertools.pairwise(positions)):
        assert placed == pytest.approx(positions)


@given(st.integers(1, 200), st.floats(0.0, 0.5))
def test_smoothing_is_a_mean_of_the_neighbours(n: int, share: float) -> None:
    values = np.random.default_rng(n).random(n)
    result = smooth(values, share)
    for k in range(n):
        half = min(int(n * share / 2), k)
        assert result[k] == pytest.approx(values[k - half : k + half + 1].mean())


def _words(figure: Figure) -> str:
    return " ".join(re.sub(r"\s+", " ", text.get_text()) for text in figure.findobj(Text) if text.get_text().strip())


def _style(variant: str, layout: str) -> tuple[str, bool]:
    """What tells one dot from another: the variant's marker, and whether it is open."""
    return MARKERS[variant], layout != "uniform"


def _dots(axes: Any) -> list[tuple[tuple[str, bool], float]]:
    """The single markers of a panel: how they look and where they stand."""
    dots = []
    for line in axes.lines:
        if line.get_marker() not in ("None", None, "") and len(line.get_xdata()) == 1:
            dots.append(((line.get_marker(), line.get_markerfacecolor() == "white"), float(line.get_xdata()[0])))
    return sorted(dots)


def test_the_invented_runs_are_made_in_a_second(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, NANO)
    assert len(folders) == 13 and all((folder / "evaluation.parquet").is_file() for folder in folders)
