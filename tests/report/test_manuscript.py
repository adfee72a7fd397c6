"""What a manuscript takes: captions are short, notes stand beneath, and all of a report compiles in a plain article."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deconattn.report.draw import draw
from deconattn.report.manuscript import FILES, write_manuscript
from tests.conftest import skip_or_fail
from tests.make_results import PAPER_SIZES, make_runs, report

pytestmark = pytest.mark.slow
GIVEN = {
    "table_findings": {"models": ["500m"]}, "table1": {"model": "500m"}, "table4": {"model": "500m", "paper": "apart"},
    "figure4": {"models": ["500m"]}, "figure5": {"models": ["500m"]},
}  # fmt: skip
ARTICLE = r"""\documentclass[twocolumn]{article}
\usepackage[T1]{fontenc}\usepackage{array,booktabs,graphicx}\usepackage[margin=0.75in]{geometry}
\newcommand{\reportpath}{results of mine}
\begin{document}%s\end{document}
"""


@pytest.fixture(scope="module")
def manuscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a paper beside that of a report of the paper's shape, three seeds, one run missing."""
    root = tmp_path_factory.mktemp("manuscript")
    tables = report(root, make_runs(root, PAPER_SIZES[2], seeds=(0, 1, 2), missing=[("mlp", "even")]))
    shown = root / "results of mine"
    folders = {name: shown / ("tables" if name.startswith("table") else "figures") for name in GIVEN}
    for name, options in GIVEN.items():
        draw(name, tables, folders[name], options)
    write_manuscript(folders, shown)
    return root


def test_captions_are_short_and_what_more_there_is_stands_beneath(manuscript: Path) -> None:
    shown = manuscript / "results of mine"
    texts = {path.name: path.read_text() for path in [*shown.glob("*.tex"), *shown.glob("tables/*.tex")]}
    captions = [caption for text in texts.values() for caption in re.findall(r"\\caption\{(.*)\}", text)]
    assert len(captions) >= 7 and all(len(caption.split()) <= 40 for caption in captions), captions
    shrunk = re.compile("scriptsize|tiny|resizebox|scalebox")
    assert not any(shrunk.search(text) for text in texts.values())
    assert "standard deviation over training seeds" in texts["table1.tex"].partition(r"\bottomrule")[2]
    assert "mlp hybrid (even)" in texts["table1.tex"].rpartition(r"\bottomrule")[2], "the gap"
    assert all(rf"\input{{\reportpath/tables/{name}.tex}}" in texts["tables.tex"] for name in ("table1", "table4"))
    assert r"\begin{figure}" in texts["figures.tex"] and r"\begin{figure*}" in texts["figures.tex"]


def test_the_papers_values_are_apart_or_left_out(manuscript: Path, tmp_path: Path) -> None:
    apart = (manuscript / "results of mine/tables/table4.tex").read_text().split(r"\begin{table*}")[1:]
    of_each = ["& ours &" in text for text in apart]
    assert of_each == sorted(of_each, reverse=True) and len(set(of_each)) == 2, "first all of ours"
    assert [r"\textit{paper}" in text for text in apart] == [not ours for ours in of_each]
    draw("table1", manuscript / "report/tables", tmp_path, {"model": "500m", "paper": "none"})
    for kind, of_the_paper in (("csv", ",paper,"), ("tex", "textit{paper}"), ("html", 'class="published"')):
        assert of_the_paper not in (tmp_path / f"table1.{kind}").read_text(), kind


def test_it_compiles_in_a_plain_article(manuscript: Path) -> None:
    if shutil.which("pdflatex") is None:
        skip_or_fail("pdflatex is not installed: that a report's LaTeX compiles was not tested")
    inputs = "".join(rf"\input{{\reportpath/{name}}}\clearpage " for name in FILES)
    (manuscript / "article.tex").write_text(ARTICLE % inputs)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "article.tex"]
    done = subprocess.run(command, cwd=manuscript, capture_output=True, text=True, timeout=300, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (manuscript / "article.log").read_text(errors="replace")
    assert not re.findall(r"Overfull \\hbox.*|Float too large.*", log)
    assert all(f"{name}.pdf" in log for name in ("figure4", "figure5"))
