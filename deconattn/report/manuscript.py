"""For manuscripts: all figures, all tables and the findings of a report as LaTeX that a plain article can \\input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from deconattn.exhibits import EXHIBITS
from deconattn.report.html import write_text
from deconattn.report.print_table import latex_escape
from deconattn.report.style import SINGLE_COLUMN

FILES = ("figures.tex", "tables.tex", "findings.tex")
HEAD = r"""% In a preamble: \usepackage[T1]{fontenc}\usepackage{array,booktabs,graphicx}\usepackage[margin=0.75in]{geometry}
% and, where the report lies elsewhere, \newcommand{\reportpath}{results/reports/demo} before this is read.
\providecommand{\reportpath}{.}
"""


def write_manuscript(exhibits: Mapping[str, Path], out: Path) -> list[Path]:
    """Write `FILES` into `out`, which stand beside the report's `figures` and `tables`; returns their paths.

    A caption has the heading of its exhibit; what more there is to say stands beneath. Figures are included at their size.
    """
    named = [name for name in EXHIBITS if name in exhibits]
    texts = {
        "figures.tex": [_figure(name, exhibits[name] / f"{name}.pdf") for name in named if not EXHIBITS[name].is_table],
        "tables.tex": [_table(name) for name in named if EXHIBITS[name].is_table and name != "table_findings"],
        "findings.tex": [_table(name) for name in named if name == "table_findings"],
    }
    return [write_text(out / name, "\n".join([HEAD, *texts[name], ""])) for name in FILES]


def _table(name: str) -> str:
    return f"\\input{{\\reportpath/tables/{name}.tex}}"


def _figure(name: str, pdf: Path) -> str:
    heading, rest = EXHIBITS[name].caption.split("**")[1:]
    found = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf.read_bytes())
    fits = found is not None and float(found[1]) <= 72 * SINGLE_COLUMN + 1
    kind = "figure" if fits else "figure*"
    return "\n".join(
        [
            f"\\begin{{{kind}}}[tp]",
            "\\centering",
            f"\\includegraphics{{\\reportpath/figures/{name}.pdf}}",
            f"\\caption{{{latex_escape(heading)}}}",
            f"\\label{{fig:{name.removeprefix('figure').lstrip('_')}}}",
            f"\\par\\raggedright\\footnotesize {latex_escape(rest.strip())}",
            f"\\end{{{kind}}}\n",
        ]
    )
