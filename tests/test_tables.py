"""Collecting, summarising and printing results: against values worked out apart from the code that is tested."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deconattn.errors import UserError
from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.report.caveat import caveats
from deconattn.report.collect import MAX_POINTS, collect, thin
from deconattn.report.exhibits import draw, outputs_of
from deconattn.report.names import AVERAGE, accuracy_column
from deconattn.report.published import load_published
from deconattn.report.results import Results
from deconattn.report.table_latex import escape
from deconattn.report.table_text import number
from deconattn.report.throughput import throughput_note
from deconattn.training.schema import TRAIN
from tests.conftest import ROOT, skip_or_fail
from tests.make_results import ALL_TASKS, GUESS, NANO, PAPER_SIZES, make_baselines, make_runs

PUBLISHED = ROOT / "deconattn" / "report" / "published_results.csv"


class Rows(HTMLParser):
    """The rows of a page that carry a source, each as its attributes and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[tuple[dict[str, str | None], list[str]]] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.row = (dict(attrs), [])
            if "data-source" in self.row[0]:
                self.rows.append(self.row)
        elif tag in ("td", "th"):
            self.row[1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.row[1][-1] += data

    def find(self, source: str, variant: str, layout: str, mode: str = "full") -> list[str]:
        wanted = {"data-source": source, "data-variant": variant, "data-layout": layout, "data-mode": mode}
        found = [cells for attributes, cells in self.rows if wanted.items() <= attributes.items()]
        assert len(found) == 1, (wanted, len(found))
        return found[0][3:]


def report(root: Path, folders: list[Path], baselines: bool = True) -> Path:
    collect(folders, root / "report", make_baselines(root / "baselines.parquet") if baselines else None)
    return root / "report" / "tables"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    tables = report(root, make_runs(root))
    draw("table1", tables, tables, {"model": "nano"})
    return tables


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("broken")
    folders = make_runs(
        root,
        missing=[("rndembqk", "uniform")],
        diverged=[("nonapproximate", "uniform")],
        unevaluated=[("mlp", "even")],
    )
    tables = report(root, folders, baselines=False)
    draw("table1", tables, tables, {"model": "nano"})
    return tables


def test_a_run_that_is_not_there_is_a_gap_and_no_number(broken: Path) -> None:
    runs = pd.read_parquet(broken / "runs.parquet").set_index(["variant", "layout"])
    assert runs["status"].value_counts().to_dict() == {"finished": 11, "diverged": 1, "missing": 1}
    assert runs.loc[("rndembqk", "uniform"), "status"] == "missing"
    assert runs.loc[("rndembqk", "uniform"), ["parameters", "tokens", "final_train_loss"]].isna().all()
    assert runs.loc[("nonapproximate", "uniform"), "status"] == "diverged"
    gaps = pd.read_parquet(broken / "gaps.parquet")
    assert set(zip(gaps["stage"], gaps["variant"].fillna(""), strict=True)) == {
        ("pretrain", "rndembqk"),
        ("pretrain", "nonapproximate"),
        ("evaluate", "mlp"),
        ("baselines", ""),
    }
    rows = Rows((broken / "table1.html").read_text())
    assert set(rows.find("ours", "rndembqk", "uniform")) == {"–"}
    assert set(rows.find("ours", "mlp", "even")) == set(rows.find("ours", "mlp", "even", "skip")) == {"–"}
    assert set(rows.find("ours", "nonapproximate", "uniform")) == {"diverged"}
    page = (broken / "table1.html").read_text()
    for line in ("rndembqk uniform: not trained yet", "mlp hybrid (even): not evaluated yet", "training diverged"):
        assert line in page
    cells = pd.read_parquet(broken / "table1.parquet")
    assert cells.loc[cells["status"] != "ok", "value"].isna().all()


def test_runs_carry_what_the_run_left(tmp_path: Path) -> None:
    folders = make_runs(tmp_path)
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
    both = pd.concat([pd.read_parquet(folder / "evaluation.parquet") for folder in folders])
    kept = pd.read_parquet(tables / "evaluation.parquet")
    keys = ["run", "mode", "task", "metric", "context_length"]
    joined = both.merge(kept, on=keys, validate="one_to_one")
    assert len(joined) == len(both) == len(kept) and (joined["value_x"] == joined["value_y"]).all()


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",))
    twin = folders[1].with_name(folders[1].name[:-8] + "0123abcd")
    shutil.copytree(folders[1], twin)
    (twin / "evaluation.parquet").unlink()
    with pytest.raises(UserError, match="same model, variant, layout and seed"):
        collect([*folders, twin], tmp_path / "report")


def test_values_of_another_run_are_refused(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",))
    shutil.copy(folders[0] / "evaluation.parquet", folders[1] / "evaluation.parquet")
    with pytest.raises(UserError, match="values of another run"):
        collect(folders, tmp_path / "report")


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
        collect(folders, tmp_path / "report")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert damage != "column" or "stderr" in str(raised.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run's folder"):
        collect([tmp_path / "figures"], tmp_path / "report")


def test_a_run_trained_with_other_settings_is_named_in_the_gap(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    wanted = folders[0].with_name(folders[0].name[:-8] + "deadbeef")
    lines = collect([wanted], tmp_path / "report")
    assert any(folders[0].name in line and line.startswith(wanted.name) for line in lines)


def test_the_baselines_given_in_place_are_left_as_they_are(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    path = make_baselines(tmp_path / "report" / "tables" / "baselines.parquet")
    os.utime(path, (1, 1))
    assert collect(folders, tmp_path / "report", path) == []
    assert path.stat().st_mtime == 1


def test_parameters_are_counted_in_the_weights_without_the_side_streams(tmp_path: Path) -> None:
    folder = make_runs(tmp_path, variants=(), layouts=())[0]
    (folder / "done.json").write_text(json.dumps({"status": "finished"}))
    (folder / "model").mkdir()
    tensors = {"a.weight": [3, 5], "b.weight": [7], "model.side_embeddings": [100, 3], "model.side_input_ids": [100]}
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    ).encode()
    (folder / "model" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    runs = pd.read_parquet(report(tmp_path, [folder]) / "runs.parquet")
    assert runs["parameters"].item() == 3 * 5 + 7


@pytest.mark.parametrize("steps", [10, MAX_POINTS, MAX_POINTS + 1, 12_345, 28_610])
def test_a_thinned_curve_keeps_means_and_ends(steps: int) -> None:
    random = np.random.default_rng(steps)
    step = np.arange(1, steps + 1)
    means = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "data_seconds", "mfu")
    columns = {name: random.random(steps) for name in means}
    columns["peak_memory_bytes"] = np.arange(steps)
    heldout = np.where(step % 100 == 0, 1.5, np.nan)
    curve = pd.DataFrame({"step": step, "tokens": step * 8, "seconds": step / 4, "heldout_loss": heldout, **columns})
    short = thin(curve)
    assert len(short) <= MAX_POINTS and short["steps_averaged"].sum() == steps
    assert steps > MAX_POINTS or len(short) == steps
    assert np.average(short["loss"], weights=short["steps_averaged"]) == pytest.approx(columns["loss"].mean())
    assert short["tokens"].iloc[-1] == 8 * steps and short["step"].iloc[-1] == steps
    assert set(short["heldout_loss"].dropna()) <= {1.5}


def test_a_thinned_curve_does_not_hide_a_divergence() -> None:
    steps = 3 * MAX_POINTS
    curve = pd.DataFrame({name: np.ones(steps) for name in TRAIN.names}).assign(
        step=np.arange(steps), tokens=np.arange(steps), heldout_loss=np.nan
    )
    curve.loc[7000, "loss"] = np.nan
    assert thin(curve)["loss"].isna().sum() == 1


def test_published_values_are_the_papers_in_our_units() -> None:
    with open(PUBLISHED) as stream:
        raw = list(csv.DictReader(stream))
    ours = load_published()
    assert len(ours) == len(raw) > 400
    layouts = {"none": ("uniform", "full"), "uniform": ("uniform", "full"), "hybrid": ("even", "full")}
    for line, row in zip(raw, ours.itertuples(), strict=True):
        scale = 100 if line["metric"] == "acc" else 1
        assert row.value * scale == pytest.approx(float(line["value"]))
        assert (row.layout, row.mode) == layouts.get(line["layout"], ("even", "skip"))
        assert (row.variant, row.task, str(row.context_length)) == (
            line["variant"],
            line["task"],
            line["context_length"],
        )
    assert ours.loc[ours["metric"] == "acc", "value"].between(0, 1).all()


def test_the_packaged_values_are_the_shared_ones(shared_data: Path) -> None:
    source = shared_data.parent / "paper" / "published_results.csv"
    if not source.is_file():
        skip_or_fail(f"the paper's values are not there: {source} is absent")
    assert source.read_bytes() == PUBLISHED.read_bytes()


def test_table1_has_every_model_mode_and_value(demo: Path) -> None:
    rows = Rows((demo / "table1.html").read_text())
    ours = [attributes for attributes, _ in rows.rows if attributes["data-source"] == "ours"]
    assert len(ours) == 2 + 13 + 6 + 6
    published = [attributes for attributes, _ in rows.rows if attributes["data-source"] == "published"]
    assert len(published) == 2 + 13 + 6
    values = pd.read_parquet(demo / "evaluation.parquet")
    for attributes in ours[2:]:
        where = {name: attributes[f"data-{name}"] for name in ("variant", "layout", "mode")}
        own = values[np.logical_and.reduce([values[name] == value for name, value in where.items()])]
        printed = rows.find("ours", *where.values())
        for place, task in enumerate(MULTIPLE_CHOICE):
            line = own[own["task"] == task].iloc[0]
            assert printed[place] == f"{100 * line['value']:.1f}± {100 * line['stderr']:.1f}"
        mean = statistics.fmean(own.loc[own["task"].isin(MULTIPLE_CHOICE), "value"])
        assert printed[7].startswith(f"{100 * mean:.1f}±")
        heldout = own[(own["task"] == "heldout") & (own["metric"] == "bits_per_byte")]["value"].item()
        assert printed[9] == f"{heldout:.3f}"


def test_the_papers_values_stand_in_the_papers_lines(demo: Path) -> None:
    rows = Rows((demo / "table1.html").read_text())
    assert rows.find("published", "standard", "uniform")[:8] == [
        "41.5± 1.0", "56.6± 0.9", "63.0± 4.9", "60.9± 1.1", "60.2± 1.5", "53.1± 3.0", "28.3± 0.4", "51.9"
    ]  # fmt: skip
    assert rows.find("published", "mlp", "even", "skip")[0] == "24.4± 0.9"
    page = (demo / "table1.html").read_text()
    assert "Another size and other data" in page and "arXiv:2510.11602" in page


def test_columns_without_a_value_of_ours_are_left_out_and_named(demo: Path, tmp_path: Path) -> None:
    page = (demo / "table1.html").read_text()
    head = page[page.index("<thead>") : page.index("</thead>")]
    assert "WikiText" not in head and "LAMBADA" not in head and "Held-out" in head
    assert "no run of nano was evaluated on them: WikiText word perplexity, LAMBADA perplexity" in page
    tables = report(tmp_path, make_runs(tmp_path, PAPER_SIZES[2]))
    draw("table1", tables, tables, {"model": "500m"})
    page = (tables / "table1.html").read_text()
    assert "Columns left out" not in page
    rows = Rows(page)
    assert rows.find("published", "standard", "uniform")[8:11] == ["38.1", "134.1", "22.9± 0.5"]
    assert rows.find("published", "nonapproximate", "uniform")[8:10] == ["90,000", "2×106"]


def test_an_average_over_fewer_tasks_says_so(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",))
    for folder in folders:
        frame = pd.read_parquet(folder / "evaluation.parquet")
        frame[~frame["task"].isin(["rte", "copa"])].to_parquet(folder / "evaluation.parquet")
    tables = report(tmp_path, folders)
    cell = Results(tables).cell("nano", "mlp", "uniform", "full", AVERAGE)
    values = pd.read_parquet(tables / "evaluation.parquet").query("variant == 'mlp' and metric == 'acc'")
    assert cell.tasks == len(values) == 5
    assert cell.value == pytest.approx(statistics.fmean(values["value"]))
    assert cell.stderr == pytest.approx(math.sqrt(sum(x * x for x in values["stderr"])) / 5)
    draw("table1", tables, tables, {"model": "nano"})
    page = (tables / "table1.html").read_text()
    assert "Our average is over 5 of the seven NLU tasks (ARC-E, BoolQ, PIQA, SciQ, HellaSwag)" in page
    printed = Rows(page).find("ours", "random_guess", "")
    assert printed[5].startswith(f"{100 * statistics.fmean(GUESS[t] for t in set(values['task'])):.1f}")
    assert "(5 tasks)" in page


def test_seeds_are_averaged_and_their_spread_is_shown(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",), seeds=(0, 1, 2))
    tables = report(tmp_path, folders)
    values = pd.read_parquet(tables / "evaluation.parquet").query("variant == 'mlp'")
    sciq = values.loc[values["task"] == "sciq", "value"].tolist()
    cell = Results(tables).cell("nano", "mlp", "uniform", "full", accuracy_column("sciq"))
    assert (cell.seeds, cell.seeds_planned, cell.stderr_of) == (3, 3, "seeds")
    assert cell.value == pytest.approx(statistics.fmean(sciq))
    assert cell.stderr == pytest.approx(statistics.stdev(sciq))
    averages = [values[(values["seed"] == s) & (values["metric"] == "acc")]["value"].mean() for s in range(3)]
    average = Results(tables).cell("nano", "mlp", "uniform", "full", AVERAGE)
    assert average.stderr == pytest.approx(statistics.stdev(averages))
    draw("table1", tables, tables, {"model": "nano"})
    assert "over n = 3 seeds" in (tables / "table1.html").read_text()
    (folders[-1] / "evaluation.parquet").unlink()
    tables = report(tmp_path, folders)
    draw("table1", tables, tables, {"model": "nano"})
    assert "(n=2)" in Rows((tables / "table1.html").read_text()).find("ours", "mlp", "uniform")[0]


def test_a_value_of_a_diverged_model_is_marked(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp",), layouts=("uniform",))
    done = json.loads((folders[1] / "done.json").read_text())
    (folders[1] / "done.json").write_text(json.dumps(done | {"status": "diverged"}))
    tables = report(tmp_path, folders)
    draw("table1", tables, tables, {"model": "nano"})
    page = (tables / "table1.html").read_text()
    assert "(†)" in Rows(page).find("ours", "mlp", "uniform")[0] and "† training of this model" in page
    assert "†" not in "".join(Rows(page).find("ours", "standard", "uniform"))


def test_a_perplexity_that_overflowed_is_no_number(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    frame.loc[frame["metric"] == "word_perplexity", "value"] = math.inf
    frame.loc[frame["task"] == "sciq", "value"] = math.nan
    frame.to_parquet(folders[0] / "evaluation.parquet")
    tables = report(tmp_path, folders)
    draw("table1", tables, tables, {"model": "nano"})
    printed = Rows((tables / "table1.html").read_text()).find("ours", "standard", "uniform")
    assert printed[8] == "∞" and printed[4] == "diverged"


def test_a_variant_of_the_users_own_stands_in_a_group_of_its_own(tmp_path: Path) -> None:
    tables = report(tmp_path, make_runs(tmp_path, variants=("mlp", "my_mixer")))
    draw("table1", tables, tables, {"model": "nano"})
    page = (tables / "table1.html").read_text()
    assert page.index("<b>Own variants</b>") > page.index("<b>Current QK</b>")
    assert Rows(page).find("ours", "my_mixer", "even", "skip_mixer")
    assert r"my\_mixer" in (tables / "table1.tex").read_text()


def test_table4_has_a_column_for_every_length(tmp_path: Path) -> None:
    tables = report(tmp_path, make_runs(tmp_path, PAPER_SIZES[0]))
    draw("table4", tables, tables, {"model": "70m"})
    rows = Rows((tables / "table4.html").read_text())
    assert rows.find("published", "standard", "uniform") == ["69.9", "56.2", "47.8", "42.0", "38.1"]
    values = pd.read_parquet(tables / "evaluation.parquet").query(
        "variant == 'standard' and task == 'wikitext' and metric == 'word_perplexity'"
    )
    by_length = values.set_index("context_length")["value"]
    assert rows.find("ours", "standard", "uniform") == [f"{by_length[n]:.1f}" for n in (128, 256, 512, 1024, 2048)]


def test_table1_takes_the_length_that_a_model_was_trained_with(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, PAPER_SIZES[0], variants=(), layouts=())
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    longer = frame[frame["task"] == "wikitext"].assign(context_length=4096, value=7.0)
    pd.concat([frame, longer]).to_parquet(folders[0] / "evaluation.parquet")
    results = Results(report(tmp_path, folders))
    from deconattn.report.names import WIKITEXT

    cell = results.cell("70m", "standard", "uniform", "full", WIKITEXT)
    expected = frame.query("task == 'wikitext' and metric == 'word_perplexity' and context_length == 2048")["value"]
    assert cell.value == expected.item() and cell.context_length == 2048


def test_parquet_csv_and_html_agree(demo: Path) -> None:
    cells = pd.read_parquet(demo / "table1.parquet")
    assert set(cells["source"]) == {"ours", "published"} and set(cells["exhibit"]) == {"table1"}
    assert not cells.duplicated(["order", "source", "column"]).any()
    with open(demo / "table1.csv") as stream:
        lines = list(csv.DictReader(stream))
    rows = Rows((demo / "table1.html").read_text())
    assert len(lines) == len(rows.rows) == len(cells.groupby(["order", "source"]))
    for line, (attributes, printed) in zip(lines, rows.rows, strict=True):
        assert (line["variant"], line["mode"]) == (attributes["data-variant"], attributes["data-mode"])
        own = cells[
            (cells["variant"] == line["variant"])
            & (cells["layout"] == line["layout"])
            & (cells["mode"] == line["mode"])
            & (cells["source"] == attributes["data-source"])
        ].set_index("column")["value"]
        assert float(line["ARC-E accuracy, %"]) == pytest.approx(100 * own["arc_easy.acc"], abs=0.0501)
        assert printed[3].startswith(line["ARC-E accuracy, %"])


def test_the_page_needs_nothing_else(demo: Path) -> None:
    page = (demo / "table1.html").read_text()
    assert "<script" not in page and not re.search(r"""(src|href)\s*=|@import|url\(""", page)
    assert "best" not in page and page.count("<b>") == 5


def test_a_model_that_was_not_asked_for_has_no_line_of_ours(tmp_path: Path) -> None:
    tables = report(tmp_path, make_runs(tmp_path, variants=("mlp", "rndembqk"), layouts=("even",)))
    draw("table1", tables, tables, {"model": "nano"})
    page = (tables / "table1.html").read_text()
    rows = Rows(page)
    ours = [a["data-variant"] for a, _ in rows.rows if a["data-source"] == "ours"]
    assert ours == ["random_guess", "majority", "standard", *["mlp"] * 3, *["rndembqk"] * 3]
    assert rows.find("published", "mlp", "uniform")[0].startswith("28.5")
    gap = "not in this grid, so only the paper&#x27;s values are shown: mlp uniform, approximate uniform"
    assert gap in page
    named = [cells[0] for a, cells in rows.rows if (a["data-variant"], a["data-source"]) == ("rndembqk", "ours")]
    assert named == ["rndembqk"] * 3


def test_latex_is_well_formed(demo: Path) -> None:
    text = (demo / "table1.tex").read_text()
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[^\x00-\x7f]", text)
    assert not re.search(r"(?<!\\)[#_]", body)
    for name in ("toprule", "bottomrule"):
        assert text.count(rf"\{name}") == 1


def test_latex_compiles(broken: Path, demo: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed: that the table compiles was not tested")
    packages = "".join(
        rf"\usepackage{p}" for p in ("[T1]{fontenc}", "[margin=2cm]{geometry}", "{booktabs}", "{graphicx}")
    )
    inputs = "".join(rf"\input{{{folder / 'table1'}}}" for folder in (broken, demo))
    (tmp_path / "page.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


@given(st.text(alphabet=st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_escaped_text_holds_nothing_that_latex_acts_on(text: str) -> None:
    escaped = escape(text)
    known = r"\\text(backslash|asciitilde|asciicircum|less|greater|bar|quotedbl)\{\}|\\[&%$#_{}]"
    assert not re.search(r"[\\&%$#_{}~^]", re.sub(known, "", escaped))


@given(st.floats(min_value=0, max_value=1e300))
def test_a_printed_number_is_its_value_to_the_digits_shown(value: float) -> None:
    main, exponent = number(value, 1)
    back = float(main.replace(",", "")) * 10.0 ** (exponent or 0)
    assert abs(back - value) <= (0.0501 if exponent is None else 0.0501 * 10.0**exponent)
    assert exponent is None or 1 <= float(main) < 10


def test_the_head_claims_only_what_the_losses_show(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=("mlp", "approximate", "rndembqk", "staticembqk"), layouts=("uniform",))

    def heads(losses: list[float]) -> str:
        for folder, loss in zip(folders, losses, strict=True):
            frame = pd.read_parquet(folder / "train.parquet")
            frame.assign(heldout_loss=loss).to_parquet(folder / "train.parquet")
        return " ".join(caveats(Results(report(tmp_path, folders)), "nano"))

    apart = heads([3.30, 3.99, 3.40, 3.36, 3.33])
    assert "mlp uniform stands apart as the worst (3.99" in apart and "between 3.30 and 3.40" in apart
    together = heads([3.30, 3.50, 3.40, 3.36, 3.33])
    assert "stands apart" not in together and "between 3.30 and 3.50" in together
    for text in (apart, together):
        assert "with one seed" in text and "5 models of 0.41M parameters" in text
        assert "1,200 times fewer parameters" in text


def test_the_head_counts_accuracies_off_chance(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    shift = {"arc_easy": 2.5, "boolq": -2.5, "copa": 1.9, "piqa": 0.0, "sciq": 9.0, "rte": 0.1, "hellaswag": -1.0}
    for task, errors in shift.items():
        at = frame["task"] == task
        frame.loc[at, "value"] = GUESS[task] + errors * frame.loc[at, "stderr"]
    frame.to_parquet(folders[0] / "evaluation.parquet")
    text = " ".join(caveats(Results(report(tmp_path, folders)), "nano"))
    assert "Of 7 NLU accuracies" in text and ", 2 lie more than two standard errors above" in text
    assert "and 1 as far below" in text


def test_limits_are_said(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, variants=(), layouts=())
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    frame["limit"] = frame["limit"].astype("Int64").mask(frame["task"] == "boolq", 100)
    frame.to_parquet(folders[0] / "evaluation.parquet")
    tables = report(tmp_path, folders)
    draw("table1", tables, tables, {"model": "nano"})
    assert "part of the items only: boolq (100 items)" in (tables / "table1.html").read_text()


def test_a_table_is_the_same_bytes_when_made_again(demo: Path, tmp_path: Path) -> None:
    draw("table1", demo, tmp_path, {"model": "nano"})
    for name in outputs_of("table1"):
        assert (tmp_path / name).read_bytes() == (demo / name).read_bytes(), name


def test_tables_and_figures_import_no_model(demo: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from deconattn.report.exhibits import draw\n"
        f"draw('table1', Path({str(demo)!r}), Path({str(tmp_path)!r}), {{'model': 'nano'}})\n"
        f"draw('figure5', Path({str(demo)!r}), Path({str(tmp_path)!r}), {{'models': ['nano']}})\n"
        "print([name for name in ('torch', 'transformers', 'lm_eval', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


CAPTIONS = sorted((ROOT / "workflow" / "report").glob("*.rst"))


@pytest.mark.parametrize("config", ["demo", "paper"])
@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda path: path.stem)
def test_captions_render_and_say_what_a_small_run_can_show(caption: Path, config: str) -> None:
    jinja2 = pytest.importorskip("jinja2")
    from docutils.core import publish_parts

    class Snakemake:
        pass

    Snakemake.config = yaml.safe_load((ROOT / "config" / f"{config}.yaml").read_text())  # type: ignore[attr-defined]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.Undefined)
    text = environment.from_string(caption.read_text()).render(snakemake=Snakemake)
    # Level 2 is a warning: a table or a link that is not well formed would be shown as an error in the report.
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    if caption.stem in ("workflow", "table1", "table2", "table3", "table4", "figure3", "figure4", "figure5"):
        marks = html.lower().count("demonstration size") - (caption.stem == "workflow")
        assert (marks > 0) == (config == "demo")


def test_every_task_of_the_tables_is_one_that_is_evaluated() -> None:
    from deconattn.evaluation.names import METRICS
    from deconattn.report.names import COLUMNS

    for column in COLUMNS:
        if column.task != "nlu_avg":
            assert column.metric in METRICS[column.task]
    assert set(ALL_TASKS) == set(METRICS)


def test_the_notes_say_how_fast_the_runs_were_trained(tmp_path: Path) -> None:
    folders = make_runs(tmp_path / "runs", NANO, variants=("mlp",), layouts=("uniform",))
    slow = next(folder for folder in folders if "mlp" in folder.name) / "train.parquet"
    curve = pd.read_parquet(slow)
    curve["tokens_per_second"], curve["mfu"], curve["data_seconds"] = 10_000.0, 0.25, 0.0
    curve.to_parquet(slow)
    collect(folders, tmp_path / "report")
    note = throughput_note(Results(tmp_path / "report" / "tables"), NANO.name)
    per_step = NANO.tokens // NANO.steps
    assert note == (
        "Trained at 10,000 tokens/s (mlp uniform) to 30,000 (standard); MFU 25.0 to 40.0 % by each variant's own FLOPs; "
        f"0.0 to {100 * 0.001 * 30_000 / per_step:.1f} % of the time waiting for data; at most 2.0 GB of memory in a process."
    )
