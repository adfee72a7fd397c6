"""Tables 1 to 4, against values worked out apart from the code that is tested, and how they are printed."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn.data.definitions import HELDOUT, NINE, definition
from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.report.cell_text import number
from deconattn.report.draw import draw
from deconattn.report.names import AVERAGE, BASELINES, COLUMNS, WIKITEXT, accuracy_column, condition_label
from deconattn.report.print_table import SOURCES, latex_escape
from deconattn.report.results import Results
from tests.make_results import ALL_TASKS, GUESS, NANO, PAPER_SIZES, make_runs, report

MLP: dict[str, Any] = {"variants": ("mlp",), "layouts": ("uniform",)}
ALONE: dict[str, Any] = {"variants": (), "layouts": ()}


class Rows(HTMLParser):
    """The lines of a printed table: variant, label, source and the texts of the cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.cell = False
        self.feed(text[text.index("<tbody>") : text.index("</tbody>")])
        self.rows = [(line[0], line[1], line[2]) for line in self.lines if len(line) > 2]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.lines[-1][-1] += data

    def find(self, source: str, variant: str, layout: str, mode: str = "full") -> list[str]:
        label = "" if variant == "standard" or not layout else condition_label(layout, mode)
        wanted = [BASELINES.get(variant, variant), label, SOURCES[source]]
        found = [line[3:] for line in self.lines if line[:3] == wanted]
        assert len(found) == 1, (wanted, len(found))
        return found[0]


def page(tables: Path, exhibit: str = "table1", **options: str) -> str:
    draw(exhibit, tables, tables, {"model": "nano", **options})
    return (tables / f"{exhibit}.html").read_text()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("demo")
    tables = report(root, make_runs(root))
    return tables, page(tables)


def test_parquet_csv_and_html_agree_and_the_page_needs_nothing_else(demo: tuple[Path, str]) -> None:
    printed = demo[0]
    cells = pd.read_parquet(printed / "table1.parquet")
    assert set(cells["source"]) == {"ours", "published"} and set(cells["exhibit"]) == {"table1"}
    assert not cells.duplicated(["order", "source", "column"]).any()
    lines = pd.read_csv(printed / "table1.csv", dtype=str, keep_default_na=False).to_dict("records")
    rows = Rows(demo[1])
    assert len(lines) == len(rows.rows) == len(cells.groupby(["order", "source"]))
    value = cells[cells["column"] == "arc_easy.acc"].set_index(["source", "variant", "layout", "mode"])["value"]
    sources = {label: name for name, label in SOURCES.items()}
    for line in lines:
        place = (sources[line["source"]], line["variant"], line["layout"], line["mode"])
        assert float(line["ARC-E accuracy, %"]) == pytest.approx(100 * value[place], abs=0.0501)
        assert rows.find(*place)[0].startswith(line["ARC-E accuracy, %"])
    assert "<script" not in demo[1] and not re.search(r"""(src|href)\s*=|@import|url\(""", demo[1]), (
        "it needs nothing else"
    )
    assert "best" not in demo[1] and demo[1].count("<b>") == 5 and demo[1].count("<table") == 1


def test_table1_has_every_model_mode_and_value(demo: tuple[Path, str]) -> None:
    rows = Rows(demo[1])
    sources = [source for _, _, source in rows.rows]
    assert (sources.count("ours"), sources.count("paper")) == (2 + 13 + 6 + 6, 2 + 13 + 6)
    values = pd.read_parquet(demo[0] / "evaluation.parquet")
    for (variant, layout, mode), own in values.groupby(["variant", "layout", "mode"]):
        printed = rows.find("ours", variant, layout, mode)
        by_task = own.set_index(["task", "metric"])
        accuracies = by_task.loc[[(task, "acc") for task in MULTIPLE_CHOICE]]
        texts = [f"{100 * row.value:.1f}± {100 * row.stderr:.1f}" for row in accuracies.itertuples()]
        assert printed[: len(texts)] == texts
        assert printed[7].startswith(f"{100 * statistics.fmean(accuracies['value']):.1f}±")
        assert printed[8] == f"{by_task.loc[('heldout', 'bits_per_byte'), 'value']:.3f}"


def test_the_papers_values_stand_in_the_papers_lines(demo: tuple[Path, str], tmp_path: Path) -> None:
    rows = Rows(demo[1])
    assert rows.find("published", "standard", "uniform")[:8] == [
        "41.5± 1.0", "56.6± 0.9", "63.0± 4.9", "60.9± 1.1", "60.2± 1.5", "53.1± 3.0", "28.3± 0.4", "51.9"
    ]  # fmt: skip
    assert rows.find("published", "mlp", "even", "skip")[0] == "24.4± 0.9"
    assert "500m models, 15B tokens of SlimPajama" in demo[1] and "arXiv:2510.11602" in demo[1]
    rows = Rows(page(report(tmp_path, make_runs(tmp_path, PAPER_SIZES[2], **ALONE)), model="500m"))
    assert rows.find("published", "standard", "uniform")[8:11] == ["38.1", "134.1", "22.9± 0.5"]
    assert rows.find("published", "nonapproximate", "uniform")[8:10] == ["90,000", "2×106"]


def test_columns_without_a_value_of_ours_are_left_out_and_named(demo: tuple[Path, str]) -> None:
    head = demo[1][demo[1].index("<thead>") : demo[1].index("</thead>")]
    assert "WikiText" not in head and "LAMBADA" not in head and "Held-out" in head
    assert "no run of nano was evaluated on them: WikiText word perplexity, LAMBADA perplexity" in demo[1]


def test_an_average_over_fewer_tasks_says_so(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, **MLP)
    for folder in folders:
        frame = pd.read_parquet(folder / "evaluation.parquet")
        frame[~frame["task"].isin(["rte", "copa"])].to_parquet(folder / "evaluation.parquet")
    tables = report(tmp_path, folders)
    cell = Results(tables).cell("nano", "mlp", "uniform", "full", AVERAGE)
    values = pd.read_parquet(tables / "evaluation.parquet").query("variant == 'mlp' and metric == 'acc'")
    assert cell.tasks == len(values) == 5
    assert cell.value == pytest.approx(statistics.fmean(values["value"]))
    assert cell.stderr == pytest.approx(math.sqrt(sum(x * x for x in values["stderr"])) / 5)
    text = page(tables)
    assert "Our average is over 5 of the seven NLU tasks (ARC-E, BoolQ, PIQA, SciQ, HellaSwag)" in text
    printed = Rows(text).find("ours", "random_guess", "")
    assert printed[5].startswith(f"{100 * statistics.fmean(GUESS[t] for t in set(values['task'])):.1f}")
    assert "(5 tasks)" in text


def test_seeds_are_averaged_and_their_spread_is_shown(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, **MLP, seeds=(0, 1, 2))
    tables = report(tmp_path, folders)
    values = pd.read_parquet(tables / "evaluation.parquet").query("variant == 'mlp' and metric == 'acc'")
    sciq = values.loc[values["task"] == "sciq", "value"].tolist()
    cell = Results(tables).cell("nano", "mlp", "uniform", "full", accuracy_column("sciq"))
    assert (cell.seeds, cell.seeds_planned, cell.stderr_of) == (3, 3, "seeds")
    assert (cell.value, cell.stderr) == pytest.approx((statistics.fmean(sciq), statistics.stdev(sciq)))
    average = Results(tables).cell("nano", "mlp", "uniform", "full", AVERAGE)
    assert average.stderr == pytest.approx(statistics.stdev(values.groupby("seed")["value"].mean()))
    text = page(tables)
    assert "± is the standard deviation over training seeds.</li>" in text and "the mean over 3 seeds" in text
    (folders[-1] / "evaluation.parquet").unlink()
    assert "(n=2)" in Rows(page(report(tmp_path, folders))).find("ours", "mlp", "uniform")[0]
    # One seed of three is no deviation over seeds.
    for folder in folders[4:]:
        shutil.rmtree(folder)
    text = page(report(tmp_path, folders))
    cell = Results(tables).cell("nano", "mlp", "uniform", "full", accuracy_column("sciq"))
    assert (cell.seeds, cell.seeds_planned, cell.stderr_of) == (1, 3, "items")
    assert "(n=1)" in Rows(text).find("ours", "mlp", "uniform")[4]
    assert "where only one seed is there, the standard error over test items" in text
    assert "with 1 to 3 seeds each" in text


def test_what_is_no_plain_value_is_marked(tmp_path: Path) -> None:
    """A perplexity that overflowed, a loss of NaN, a part of the items, a model that diverged and was evaluated."""
    folders = make_runs(tmp_path, **MLP)
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    frame.loc[frame["metric"] == "word_perplexity", "value"] = math.inf
    frame.loc[frame["task"] == "sciq", "value"] = math.nan
    frame["limit"] = frame["limit"].astype("Int64").mask(frame["task"] == "boolq", 100)
    frame.to_parquet(folders[0] / "evaluation.parquet")
    done = json.loads((folders[1] / "record.json").read_text())
    (folders[1] / "record.json").write_text(json.dumps(done | {"status": "diverged"}))
    text = page(report(tmp_path, folders))
    standard, mlp = (Rows(text).find("ours", variant, "uniform") for variant in ("standard", "mlp"))
    assert standard[9] == "∞" and standard[4] == "diverged" and "†" not in "".join(standard)
    assert "(†)" in mlp[0] and "† training of this model" in text
    assert "part of the items only: boolq (100 items)" in text


def test_table4_has_a_column_for_every_length_and_table1_that_of_training(tmp_path: Path) -> None:
    (folder,) = make_runs(tmp_path, replace(PAPER_SIZES[0], lengths=(128, 256, 512, 1024, 2048, 4096)), **ALONE)
    tables = report(tmp_path, [folder])
    text = page(tables, "table4", model="70m")
    rows = Rows(text)
    assert rows.find("published", "standard", "uniform") == ["69.9", "56.2", "47.8", "42.0", "38.1", "–"]
    values = pd.read_parquet(folder / "evaluation.parquet").query("task == 'wikitext' and metric == 'word_perplexity'")
    by_length = values.set_index("context_length")["value"]
    assert rows.find("ours", "standard", "uniform") == [f"{value:.1f}" for value in by_length] and len(values) == 6
    assert "NLU accuracies" not in text, "no accuracy is counted that is not shown"
    cell = Results(tables).cell("70m", "standard", "uniform", "full", WIKITEXT)
    assert (cell.context_length, cell.value) == (2048, by_length[2048])


def test_table4_of_held_out_text_is_in_bits_per_byte(demo: tuple[Path, str]) -> None:
    text = page(demo[0], "table4", task="heldout")
    values = pd.read_parquet(demo[0] / "evaluation.parquet").query(
        "variant == 'standard' and metric == 'bits_per_byte'"
    )
    assert Rows(text).find("ours", "standard", "uniform") == [f"{values['value'].item():.3f}"]
    assert "<th>128 tokens<small>Held-out bits per byte</small></th>" in text


def test_lines_of_ours_are_what_was_asked_for_a_variant_of_ones_own_in_a_group_of_its_own(tmp_path: Path) -> None:
    tables = report(tmp_path, make_runs(tmp_path, variants=("mlp", "my_mixer"), layouts=("even",)))
    text = page(tables)
    ours = [variant for variant, _, source in Rows(text).rows if source == "ours"]
    assert ours == [*BASELINES.values(), "standard", *["mlp"] * 3, *["my_mixer"] * 3]
    assert text.index("<b>Own variants</b>") > text.index("<b>Current QK</b>")
    assert r"my\_mixer" in (tables / "table1.tex").read_text()
    assert Rows(text).find("published", "mlp", "uniform")[0].startswith("28.5")
    gap = "not in this grid, so only the paper&#39;s values are shown: mlp uniform, approximate uniform"
    assert gap in text


def test_the_head_says_what_the_losses_accuracies_and_speeds_are(tmp_path: Path) -> None:
    folders = make_runs(tmp_path, **MLP)
    slow = {"heldout_loss": 3.99, "tokens_per_second": 10_000.0, "mfu": 0.25, "data_seconds": 0.0}
    for folder, columns in zip(folders, ({"heldout_loss": 3.30}, slow), strict=True):
        pd.read_parquet(folder / "train.parquet").assign(**columns).to_parquet(folder / "train.parquet")
    frame = pd.read_parquet(folders[0] / "evaluation.parquet")
    shift = {"arc_easy": 2.5, "boolq": -2.5, "copa": 1.9, "piqa": 0.0, "sciq": 9.0, "rte": 0.1, "hellaswag": -1.0}
    for task, errors in shift.items():
        at = frame["task"] == task
        frame.loc[at, "value"] = GUESS[task] + errors * frame.loc[at, "stderr"]
    frame.to_parquet(folders[0] / "evaluation.parquet")
    (folders[1] / "evaluation.parquet").unlink()
    text = html.unescape(page(report(tmp_path, folders)))
    share = 100 * 0.001 * 30_000 / (NANO.tokens // NANO.steps)
    for sentence in (
        "2 models (nano, 0.41M parameters), each trained on 2.6M tokens, with 1 seed each.",
        "1,213 times fewer parameters",
        "Final held-out losses lie between 3.30 (standard) and 3.99 (mlp uniform) nats a token; with one seed",
        "NLU accuracies of trained models (one a task, model and seed; skips aside) more than two standard errors above "
        "random guessing: 2 of 7; as far below it: 1.",
        "Trained at 10,000 to 30,000 tokens/s; MFU 25.0 to 40.0 % by each variant's own FLOPs; "
        f"0.0 to {share:.1f} % of the time waiting for data; 2.0 GB of memory in a process at most.",
    ):
        assert sentence in text


def test_every_task_of_the_tables_is_one_that_is_evaluated() -> None:
    for column in COLUMNS:
        if column.task in NINE:
            assert column.metric in [each["metric"] for each in definition(column.task)["metric_list"]]
    assert set(ALL_TASKS) == {*NINE, HELDOUT} == {column.task for column in COLUMNS} - {"nlu_avg"}


@given(st.text(alphabet=st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_escaped_text_holds_nothing_that_latex_acts_on(text: str) -> None:
    escaped = latex_escape(text)
    known = r"\\text(backslash|asciitilde|asciicircum|less|greater|bar|quotedbl)\{\}|\\[&%$#_{}]"
    assert not re.search(r"[\\&%$#_{}~^]", re.sub(known, "", escaped))


@given(st.floats(min_value=0, max_value=1e300))
def test_a_printed_number_is_its_value_to_the_digits_shown(value: float) -> None:
    main, exponent = number(value, 1)
    back = float(main.replace(",", "")) * 10.0 ** (exponent or 0)
    assert abs(back - value) <= (0.0501 if exponent is None else 0.0501 * 10.0**exponent)
    assert exponent is None or 1 <= float(main) < 10
