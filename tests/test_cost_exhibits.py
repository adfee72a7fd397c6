"""Tables 5 to 8 and the figure of costs: values, notes, gaps, formats; drawn from measurements whose numbers are known."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from deconattn.analysis.costs_schema import COSTS, DIFFERENCES
from deconattn.analysis.measure import formulas
from deconattn.analysis.paper_costs import differences
from deconattn.errors import UserError
from deconattn.model import ModelConfig
from deconattn.report import figure_costs, schema, style
from deconattn.report.collect_costs import collect_costs
from deconattn.report.cost_results import CostResults
from deconattn.report.exhibits import draw, outputs_of
from deconattn.report.names import VARIANTS
from tests.figure_words import assert_words_apart

EXHIBITS = ("table5", "table6", "table7", "table8", "figure_costs")
TABLES = EXHIBITS[:4]
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)


def write(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows, name: str = "500m") -> Path:
    """Measurements of a 500m mixer, formulas real and what is measured made up; gathered into `folder`/tables."""
    rows: list[dict[str, Any]] = []
    terms: list[dict[str, Any]] = []
    for variant in (*VARIANTS, "softplus"):
        config = ModelConfig(
            vocab_size=1, hidden_size=896, intermediate_size=8, num_hidden_layers=1, num_attention_heads=14,
            max_position_embeddings=8192, variant=variant,
        )  # fmt: skip
        for batch in (1, 8):
            for length in LENGTHS:
                key = {"model": name, "variant": variant, "batch": batch, "length": length}
                row = formulas(config, batch, length)
                found = {f"counted_{c}": row[c] for c in ("prefill_flops", "decode_flops")}
                found |= {f"held_{c}": row[c] for c in ("activation_bytes", "state_bytes", "state_bytes_bf16")}
                found |= {"peak_bytes": 3 * row["activation_bytes"], "training_ms": 1e-5 * length}
                found["decode_ms"] = 0.1 + 1e-4 * length * batch
                rows.append({**key, **row, **found, "device": "CPU, AVX512", "threads": 2, "torch": "2.13.0"})
                terms += [{**key, **asdict(term)} for term in differences(config, batch, length)]
    schema.write_table(change(pd.DataFrame(rows)), COSTS, folder / f"{name}.parquet")
    schema.write_table(pd.DataFrame(terms), DIFFERENCES, folder / f"{name}-differences.parquet")
    collect_costs([folder / name], folder)
    return folder / "tables"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("costs"))


def drawn(exhibit: str, tables: Path, model: str = "500m") -> Any:
    import importlib

    with style.styled():
        return importlib.import_module(f"deconattn.report.{exhibit}").draw(CostResults(tables), {"model": model})


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


@pytest.mark.parametrize("exhibit", EXHIBITS)
def test_every_format_is_written_the_same_twice_and_says_where_it_is_from(
    exhibit: str, tables: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        draw(exhibit, tables, tmp_path / folder, {"model": "500m"})
    for name in outputs_of(exhibit):
        assert (tmp_path / "a" / name).stat().st_size > 500
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    if exhibit == "figure_costs":
        record = json.loads((tmp_path / "a" / "figure_costs.json").read_text())
        assert set(record["tables"]) == {"costs.parquet", "cost_differences.parquet"} and record["runs"] == []
    else:
        assert "cost_differences.parquet (sha256" in (tmp_path / "a" / f"{exhibit}.html").read_text()


def test_table6_has_the_values_of_the_measurements(tables: Path, tmp_path: Path) -> None:
    draw("table6", tables, tmp_path, {"model": "500m"})
    cells = pd.read_parquet(tmp_path / "table6.parquet")
    assert list(dict.fromkeys(cells["column"])) == [f"costs.b{b}.{n}" for b in (1, 8) for n in (128, 512, 2048, 8192)]
    assert list(dict.fromkeys(cells["variant"])) == [*VARIANTS, "softplus"]

    def value(variant: str, mode: str, column: str, source: str = "ours") -> float:
        own = cells[(cells["variant"] == variant) & (cells["mode"] == mode) & (cells["column"] == column)]
        (found,) = own.loc[own["source"] == source, "value"]
        return found

    b, n, d = 8, 2048, 896
    assert value("standard", "prefill_flops_square", "costs.b8.2048") == 8 * b * n * d * d + 4 * b * n * n * d
    assert (
        value("standard", "printed_prefill_flops", "costs.b8.2048", "published")
        == 6 * b * n * d * d + 4 * b * n * n * d
    )
    assert (
        value("rndembqk", "printed_decode_flops", "costs.b8.2048", "published")
        == 2 * n * d + 2 * b * n * d + 6 * b * d * d
    )
    assert cells[cells["variant"] == "softplus"]["source"].unique().tolist() == ["ours"]
    with open(tmp_path / "table6.csv") as stream:
        lines = list(csv.DictReader(stream))
    (line,) = [x for x in lines if (x["variant"], x["mode"]) == ("standard", "printed_decode_flops")]
    assert line["B = 1, L = 128 FLOPs"] == "5.28e6"


@pytest.mark.parametrize("exhibit", ["table6", "table7", "table8"])
def test_notes_say_whether_formulas_and_counts_agree(exhibit: str, tables: Path, tmp_path: Path) -> None:
    notes = " ".join(drawn(exhibit, tables).notes)
    assert "agree exactly, in all 112 rows" in notes and "differ in" not in notes

    def wrong(rows: pd.DataFrame) -> pd.DataFrame:
        found = {"table6": "counted_decode_flops", "table7": "held_activation_bytes", "table8": "held_state_bytes"}
        rows.loc[3, found[exhibit]] += 1
        return rows

    notes = " ".join(drawn(exhibit, write(tmp_path, wrong)).notes)
    assert "differ in 1 of 112 rows, such as standard B = 1 L = 1,024." in notes


@pytest.mark.parametrize(
    ("exhibit", "wanted"),
    [
        (
            "table6",
            {"Output projection.", "Causal half.", "Side stream computed once.", "Chunked scan.", "Inner width."},
        ),
        ("table8", {"Second-order features.", "Float32.", "Queries of the side stream."}),
    ],
)
def test_every_difference_is_named_in_the_notes(exhibit: str, wanted: set[str], tables: Path) -> None:
    terms = pd.read_parquet(tables / "cost_differences.parquet")
    terms = terms[(terms["quantity"] == "state_bytes") == (exhibit == "table8")]
    notes = drawn(exhibit, tables).notes
    assert wanted <= {f"{name.capitalize()}." for name in terms["name"]}
    for name, sentence in set(zip(terms["name"], terms["sentence"], strict=True)):
        assert any(note.startswith(f"{name.capitalize()}. {sentence} (") for note in notes), name
    last = terms[(terms["variant"] == "standard") & (terms["name"] == "output projection") & (terms["batch"] == 8)]
    for amount in last[last["length"] == 8192]["amount"]:
        assert any(f"{amount:+,}" in note for note in notes)


def test_table5_is_words(tables: Path, tmp_path: Path) -> None:
    draw("table5", tables, tmp_path, {"model": "500m"})
    cells = pd.read_parquet(tmp_path / "table5.parquet")
    assert cells["value"].isna().all()
    own = cells[(cells["variant"] == "rndembqk") & (cells["source"] == "ours")]["text"].tolist()
    assert own == ["O(BL²d + BLd²)", "O(BLd + Bd²)", "O(BLd)", "O(BLd)"]
    assert cells[(cells["variant"] == "softplus")]["status"].unique().tolist() == ["missing"]
    assert "O(BL$^2$d + BLd$^2$)" in (tmp_path / "table5.tex").read_text()


def left_out(rows: pd.DataFrame) -> pd.DataFrame:
    measured = [c for c in rows if c.startswith(("held_", "peak_", "training_", "decode_ms"))]
    rows["reason"] = None
    hit = (rows["variant"] == "approximate") & (rows["length"] == 8192)
    rows.loc[hit, measured] = None
    rows.loc[hit, "reason"] = "needs about 9.0 GB; 4.0 GB are given (memory_mb)"
    return rows


@pytest.mark.parametrize("exhibit", EXHIBITS)
def test_what_was_not_measured_is_said(exhibit: str, tmp_path: Path) -> None:
    tables = write(tmp_path, left_out)
    found = drawn(exhibit, tables)
    assert found.gaps == [
        f"approximate B = {b} L = 8,192: not measured, needs about 9.0 GB; 4.0 GB are given (memory_mb)" for b in (1, 8)
    ]
    if exhibit == "table7":
        (row,) = [r for r in found.rows if r.variant == "approximate" and r.mode == "peak_bytes"]
        assert row.ours["costs.b8.8192"].status == "missing" and row.ours["costs.b8.2048"].status == "ok"
    if exhibit == "figure_costs":
        assert "Gaps: approximate B = 1 L = 8,192" in words(found.figure)


@pytest.mark.parametrize("exhibit", EXHIBITS)
def test_a_model_that_is_not_measured_yet_is_a_gap(exhibit: str, tmp_path: Path) -> None:
    collect_costs([tmp_path / "not-there"], tmp_path)
    paths = draw(exhibit, tmp_path / "tables", tmp_path / "out", {"model": "500m"})
    assert all(path.is_file() for path in paths)
    assert drawn(exhibit, tmp_path / "tables").gaps == ["500m: not measured yet"]
    if exhibit != "figure_costs":
        assert "500m: not measured yet" in (tmp_path / "out" / f"{exhibit}.html").read_text()


def test_two_measurements_of_a_model_are_refused(tmp_path: Path) -> None:
    write(tmp_path, name="a")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "b-differences.parquet").write_bytes((tmp_path / "a-differences.parquet").read_bytes())
    with pytest.raises(UserError, match=r"b\.parquet: model 'a' is also in .*a\.parquet; name one"):
        collect_costs([tmp_path / "a", tmp_path / "b"], tmp_path)


def test_the_figure_shows_the_measurements_and_its_words_are_apart(tables: Path, tmp_path: Path) -> None:
    figure = drawn("figure_costs", tables).figure
    panels = figure.axes
    assert len(panels) == 8
    rows = pd.read_parquet(tables / "costs.parquet").query("variant == 'mlp' and batch == 8").sort_values("length")
    line = panels[5].lines[1]
    assert list(line.get_xdata()) == list(LENGTHS)
    assert list(line.get_ydata()) == pytest.approx([value / 1e6 for value in rows["peak_bytes"]])
    assert list(panels[7].lines[1].get_ydata()) == pytest.approx(list(rows["decode_ms"]))
    for upper, lower in zip(panels[:4], panels[4:], strict=True):
        assert upper.get_ylim() == lower.get_ylim()
    assert "CPU, AVX512, 2 threads, torch 2.13.0" in words(figure)
    with style.styled():
        assert_words_apart(figure_costs.draw(CostResults(tables), {"model": "500m"}).figure)
        holes = CostResults(write(tmp_path, left_out))
        assert_words_apart(figure_costs.draw(holes, {"model": "500m"}).figure)


def test_exhibits_of_costs_import_no_torch() -> None:
    code = (
        "import sys; from deconattn.report import collect_costs, table5, table6, table7, table8, figure_costs; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
