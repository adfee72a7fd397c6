"""How tables are printed: formats agree, pages and LaTeX are whole; captions hold for every run."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deconattn.exhibits import EXHIBITS, PAGE_CAPTION
from deconattn.report.cell_text import number
from deconattn.report.draw import draw
from deconattn.report.print_table import SOURCES, latex_escape
from tests.conftest import ROOT
from tests.make_results import make_runs, report
from tests.report.rows import Rows


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    tables = report(root, make_runs(root))
    draw("table1", tables, tables, {"model": "nano"})
    return tables


def test_parquet_csv_and_html_agree(printed: Path) -> None:
    cells = pd.read_parquet(printed / "table1.parquet")
    assert set(cells["source"]) == {"ours", "published"} and set(cells["exhibit"]) == {"table1"}
    assert not cells.duplicated(["order", "source", "column"]).any()
    lines = pd.read_csv(printed / "table1.csv", dtype=str, keep_default_na=False).to_dict("records")
    rows = Rows((printed / "table1.html").read_text())
    assert len(lines) == len(rows.rows) == len(cells.groupby(["order", "source"]))
    value = cells[cells["column"] == "arc_easy.acc"].set_index(["source", "variant", "layout", "mode"])["value"]
    sources = {label: name for name, label in SOURCES.items()}
    for line in lines:
        place = (sources[line["source"]], line["variant"], line["layout"], line["mode"])
        assert float(line["ARC-E accuracy, %"]) == pytest.approx(100 * value[place], abs=0.0501)
        assert rows.find(*place)[0].startswith(line["ARC-E accuracy, %"])


def test_the_page_needs_nothing_else(printed: Path) -> None:
    page = (printed / "table1.html").read_text()
    assert "<script" not in page and not re.search(r"""(src|href)\s*=|@import|url\(""", page)
    assert "best" not in page and page.count("<b>") == 5 and page.count("<table") == 1


def test_latex_is_well_formed_and_as_wide_as_a_page(printed: Path) -> None:
    text = (printed / "table1.tex").read_text()
    parts = re.findall(r"\\toprule.*?\\bottomrule", text, re.S)
    assert len(parts) == 2, "ten columns take two floats, none of them shrunk"
    assert "resizebox" not in text
    for body in parts:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
        assert not re.search(r"(?<!\\)[#_]", body)
        assert len(lines) < 60
        cells = [re.split(r"(?<!\\)&", line) for line in lines if "midrule" not in line]
        shown = [[re.sub(r"\\[a-z]+|[{}$\\]", "", cell).strip() for cell in row] for row in cells]
        widest = [max(map(len, column)) for column in zip(*shown, strict=True)]
        # A letter of 8 pt is about 4.2 pt wide; a page with margins of 0.75 inches has 504.
        assert 4.2 * sum(widest) + 5 * len(widest) < 504, widest
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[^\x00-\x7f]", text)


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


def test_a_table_is_the_same_bytes_when_made_again(printed: Path, tmp_path: Path) -> None:
    draw("table1", printed, tmp_path, {"model": "nano"})
    for name in EXHIBITS["table1"].files:
        assert (tmp_path / name).read_bytes() == (printed / name).read_bytes(), name


CAPTIONS = {name: exhibit.caption for name, exhibit in EXHIBITS.items()} | {"origin": PAGE_CAPTION}


PAGES = sorted((ROOT / "workflow" / "report").glob("*.rst"))


@pytest.mark.parametrize("config", ["demo", "paper"])
def test_captions_render_and_say_what_a_small_run_can_show(config: str) -> None:
    from docutils.core import publish_parts

    settings = yaml.safe_load((ROOT / "config" / f"{config}.yaml").read_text())
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.Undefined)
    for name in ("workflow", *CAPTIONS):
        trained = name in EXHIBITS and not EXHIBITS[name].costed
        template = ROOT / "workflow" / "report" / ("workflow.rst" if name == "workflow" else "caption.rst")
        text = environment.from_string(template.read_text()).render(
            snakemake=SimpleNamespace(config=settings, params={"caption": CAPTIONS.get(name), "trained": trained})
        )
        # Level 2 is a warning: a table or a link that is not well formed would be shown as an error in the report.
        html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
        marks = html.lower().count("demonstration size") - (name == "workflow")
        assert (marks > 0) == (config == "demo" and (trained or name == "workflow")), name
        assert name == "workflow" or "<strong>" in html


FIXED_FINDINGS = (
    "worst", "near chance", "at chance", "noise between seeds", "other size", "another size", "other data", "inset",
    "enlarged",
)  # fmt: skip


def test_no_fixed_text_states_a_result_of_this_run() -> None:
    """What a run found is worked out from its numbers; a caption holds for every run that it stands under."""
    texts = {path.stem: path.read_text() for path in [*PAGES, *sorted((ROOT / "config").glob("*.yaml"))]}
    for name, text in {**texts, **CAPTIONS}.items():
        assert not [words for words in FIXED_FINDINGS if words in " ".join(text.split())], name
