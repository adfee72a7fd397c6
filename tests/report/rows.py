"""The lines of a table as they stand on its page."""

from __future__ import annotations

from html.parser import HTMLParser

from deconattn.report.names import BASELINES, condition_label
from deconattn.report.print_table import SOURCES


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
