"""A table as one HTML page that needs nothing else: no script, no font and no file from anywhere."""

from __future__ import annotations

from html import escape

from deconattn.report.names import Column, Family
from deconattn.report.palette import FAMILY_COLOURS
from deconattn.report.table_text import DIVERGED_TEXT, MISSING_TEXT, SOURCES, CellText, cell_text
from deconattn.report.tables import Row, Table, families_of

_CSS = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #5c5c5c; --rule: #d9d9d9; --paper: #f6f6f4; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 96rem; color: var(--ink); background: #fff;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .75rem; }
p, ul, dl { max-width: 52rem; }
p { margin: 0 0 .5rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .35rem .9rem; margin: 0 0 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
.paper, dt.paper { color: var(--soft); }
.switch { display: inline-flex; gap: .5rem; align-items: center; margin: 0 0 .75rem; cursor: pointer; }
#paper-values:not(:checked) ~ .scroll tr.published { display: none; }
#paper-values { position: absolute; opacity: 0; }
.switch::before { content: "☐"; font-size: 1.1em; } #paper-values:checked + .switch::before { content: "☑"; }
#paper-values:focus-visible + .switch { outline: 2px solid #143f9e; outline-offset: 2px; }
.scroll { overflow-x: auto; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .45rem; text-align: right; white-space: nowrap; font-weight: normal; }
thead th { vertical-align: bottom; font-weight: 600; border-bottom: 1px solid var(--ink); background: #fff; }
thead small { display: block; font-weight: normal; color: var(--soft); font-size: .78em; }
th[scope=row], th.name, td.source { text-align: left; }
td.source { color: var(--soft); }
th.again { color: var(--soft); }
th.name { position: sticky; left: 0; background: #fff; z-index: 1; }
tbody.group { border-left: 0; }
tr.family th { text-align: left; padding-top: .7rem; border-top: 1px solid var(--rule); background: #fff; }
tr.family b { font-weight: 600; } tr.family span { color: var(--soft); }
tr.family i { display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 2px; }
tr.published td, tr.published th { color: var(--soft); background: var(--paper); }
tr.first th, tr.first td { border-top: 1px solid #efefef; }
td small { color: var(--soft); font-size: .78em; margin-left: .25em; }
sup { line-height: 0; } td.word { color: var(--soft); font-style: italic; }
h2 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
ul { margin: .25rem 0; padding-left: 1.2rem; } li { margin: .15rem 0; }
footer { margin-top: 1.25rem; color: var(--soft); font-size: .85em; } footer code { overflow-wrap: anywhere; }
@media print { .switch { display: none; } body { font-size: 8pt; padding: 0; } }
"""

_SWITCH = """<input type="checkbox" id="paper-values" checked>
<label class="switch" for="paper-values">show the paper's values</label>"""


def to_html(table: Table, provenance: str = "") -> str:
    """The table as a page: title, what ours and the paper's values are, the values, notes, gaps, provenance."""
    head = "".join(f"<th scope=col>{escape(c.label)}<small>{escape(c.quantity)}</small></th>" for c in table.columns)
    groups = "\n".join(_group(family, rows, table.columns) for family, rows in families_of(table))
    lead = "".join(_definition(text) for text in table.lead)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    gaps = "".join(f"<li>{escape(gap)}</li>" for gap in table.gaps)
    foot = f"<footer>{provenance}</footer>" if provenance else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(table.title)}</title><style>{_CSS}</style></head>
<body>
<h1>{escape(table.title)}</h1>
<dl>{lead}</dl>
{_SWITCH if any(row.published for row in table.rows) else ""}
<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>
<thead><tr><th scope=col class="name">variant</th><th scope=col style="text-align:left">{escape(table.row_head)}</th>
<th scope=col style="text-align:left">source</th>{head}</tr></thead>
{groups}
</table></div>
<h2>Notes</h2><ul>{notes}</ul>
{f"<h2>Gaps</h2><ul>{gaps}</ul>" if gaps else ""}
{foot}
</body></html>
"""


def _definition(text: str) -> str:
    term, _, rest = text.partition(": ")
    return f'<dt class="{escape(term)}">{escape(term)}</dt><dd class="{escape(term)}">{escape(rest)}</dd>'


def _group(family: Family | None, rows: list[Row], columns: list[Column]) -> str:
    lines = ["<tbody>"]
    if family is not None:
        mark = f'<i style="background:{FAMILY_COLOURS[family.key]}"></i>'
        lines.append(
            f"<tr class=family><th scope=rowgroup colspan={3 + len(columns)}>{mark}<b>{escape(family.label)}</b> "
            f"<span>– {escape(family.change)}</span></th></tr>"
        )
    previous = ""
    for row in rows:
        lines += _lines(row, columns, row.variant != previous)
        previous = row.variant
    return "\n".join([*lines, "</tbody>"])


def _lines(row: Row, columns: list[Column], first: bool) -> list[str]:
    # The name stands in the first line of every row, softly where it repeats: with the paper's lines hidden, a variant
    # whose first row is only the paper's would lose its name otherwise.
    name = escape(row.label if row.family is None else row.variant)
    label = "" if row.family is None else escape(row.label)
    weight = " again" if not first and row.family is not None else ""
    out = []
    for source, cells in (("ours", row.ours), ("published", row.published)):
        if not cells:
            continue
        kind = " ".join(filter(None, ["published" if source == "published" else "", "first" if name and first else ""]))
        tds = "".join(_cell(cell_text(cells[c.key], c)) for c in columns)
        out.append(
            f'<tr class="{kind}" data-variant="{escape(row.variant)}" data-layout="{escape(row.layout)}" '
            f'data-mode="{escape(row.mode)}" data-source="{source}"><th class="name{weight}" scope=row>{name}</th>'
            f"<th scope=row>{label}</th><td class=source>{SOURCES[source]}</td>{tds}</tr>"
        )
        name = label = ""
    return out


def _cell(text: CellText) -> str:
    if text.main in (MISSING_TEXT, DIVERGED_TEXT):
        return f"<td class=word>{text.main}</td>"
    power = "" if text.exponent is None else f"×10<sup>{text.exponent}</sup>"
    spread = f"<small>± {escape(text.spread)}</small>" if text.spread else ""
    remarks = f"<small>({escape(text.remarks)})</small>" if text.remarks else ""
    return f"<td>{escape(text.main)}{spread}{power}{remarks}</td>"
