"""A table as LaTeX: a float to be taken in with \\input, with booktabs and graphicx and nothing else."""

from __future__ import annotations

import re

from deconattn.report.names import Column
from deconattn.report.table_text import SOURCES, CellText, cell_text
from deconattn.report.tables import Row, Table, families_of

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---", "∞": r"$\infty$", "†": r"$\dagger$",
    "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$", "≥": r"$\geq$", "…": r"\ldots{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "²": "$^2$", "≤": r"$\leq$", "φ": r"$\varphi$", "Σ": r"$\Sigma$", "·": r"$\cdot$",
     "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Text in which every character that means something to LaTeX stands for itself."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda found: _SPECIAL[found[0]], text)


def to_latex(table: Table) -> str:
    """The whole table as a `table*` float; the paper's rows are in italics under ours."""
    columns = "lll" + "r" * len(table.columns)
    lines = [
        "% needs \\usepackage[T1]{fontenc}, \\usepackage{booktabs} and \\usepackage{graphicx}",
        "\\begin{table*}[tp]",
        "\\centering",
        "\\setlength{\\tabcolsep}{3.5pt}\\setlength{\\belowcaptionskip}{4pt}",
        f"\\caption{{{_caption(table)}}}",
        f"\\label{{tab:{table.exhibit}}}",
        # Shrinks a table that is too wide and leaves the others at their size.
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\footnotesize\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        "\\toprule",
        " & & & " + " & ".join(escape(c.label) for c in table.columns) + r" \\",
        " & & & " + " & ".join(f"{{\\scriptsize {escape(_unit(c))}}}" for c in table.columns) + r" \\",
    ]
    for family, rows in families_of(table):
        lines.append("\\midrule")
        if family is not None:
            span = 3 + len(table.columns)
            lines.append(f"\\multicolumn{{{span}}}{{@{{}}l}}{{\\textit{{{escape(family.label)}}}}} \\\\")
        previous = ""
        for row in rows:
            lines += _lines(row, table.columns, row.variant != previous)
            previous = row.variant
    lines += ["\\bottomrule", "\\end{tabular}}", "\\end{table*}"]
    return "\n".join(lines) + "\n"


def _lines(row: Row, columns: list[Column], first: bool) -> list[str]:
    name = (row.label if row.family is None else row.variant) if first or row.family is None else ""
    label = "" if row.family is None else row.label
    out = []
    for source, cells in (("ours", row.ours), ("published", row.published)):
        if not cells:
            continue
        texts = [_cell(cell_text(cells[c.key], c), italic=source == "published") for c in columns]
        out.append(" & ".join([escape(name), escape(label), _italic(SOURCES[source], source), *texts]) + r" \\")
        name = label = ""
    return out


def _cell(text: CellText, italic: bool) -> str:
    main = f"\\textit{{{escape(text.main)}}}" if italic else escape(text.main)
    if text.spread:
        main += f"{{\\tiny$\\,\\pm${escape(text.spread)}}}"
    if text.exponent is not None:
        main += f"${{\\times}}10^{{{text.exponent}}}$"
    if text.remarks:
        main += f"{{\\tiny\\,({escape(text.remarks)})}}"
    return main


def _italic(text: str, source: str) -> str:
    return f"\\textit{{{text}}}" if source == "published" else text


def _unit(column: Column) -> str:
    return column.quantity.replace("accuracy, %", "acc %").replace("perplexity", "ppl")


def _caption(table: Table) -> str:
    gaps = [f"Gaps: {'; '.join(table.gaps)}."] if table.gaps else []
    # LaTeX numbers the float itself.
    title = _sentence(table.title.partition(": ")[2] or table.title)
    return escape(" ".join([f"{title}.", *(_sentence(text) for text in table.lead), *table.notes, *gaps]))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
