"""What every table and figure has: one row of the registry in `exhibits`. Imports nothing that computes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

TABLE_KINDS, FIGURE_KINDS = ("html", "parquet", "csv", "tex", "json"), ("png", "svg", "pdf", "json")
"""Formats in which a table and a figure are written: first what a report shows, last the record."""


Options = dict[str, tuple[Any, Any]]
"""Name of an option → its type, and what pydantic's `Field` says of it."""


@dataclass(frozen=True)
class Exhibit:
    """One table or figure.

    draws: `module:function`; the function takes (results, options) and gives a `Table` or a `Drawing`.
    reads: names of the collected tables that it is drawn from, without `.parquet`. They say which stages it needs: see
        `analysed`, `costed` and `priced`.
    layouts, variants, without: which runs of its models it shows; variants None: all but `without`. The standard model
    counts as any of the layouts.
    """

    name: str
    title: str
    category: str
    draws: str
    reads: tuple[str, ...]
    caption: str
    options: Options
    layouts: tuple[str, ...] = ("uniform", "even")
    variants: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The heading of its caption."""
        return self.caption.split("**")[1]

    @property
    def is_table(self) -> bool:
        return self.name.startswith("table")

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that are written for it."""
        return tuple(f"{self.name}.{kind}" for kind in (TABLE_KINDS if self.is_table else FIGURE_KINDS))

    @property
    def analysed(self) -> bool:
        """Whether it looks into the attention of trained models."""
        return "analysis_gaps" in self.reads

    @property
    def costed(self) -> bool:
        """Whether it shows what mixers cost, of models that need not be trained."""
        return "costs" in self.reads

    @property
    def priced(self) -> bool:
        """Whether it shows what trained runs cost, by formula."""
        return "run_costs" in self.reads

    def shows(self, variant: str, layout: str, asked: Collection[str] | None = None) -> bool:
        """Whether a run of its models belongs to it; `asked` are the variants that a configuration names for it."""
        if asked:
            chosen = variant in (*asked, "standard")
        else:
            chosen = variant in self.variants if self.variants is not None else variant not in self.without
        return chosen and (layout in self.layouts or (variant == "standard" and bool(self.layouts)))

    @property
    def defaults(self) -> dict[str, Any]:
        """Its options that need not be given, with their values."""
        return {name: field.default for name, (_, field) in self.options.items() if not field.is_required()}
