"""The settings under `exhibits`: one key for each table and figure of the registry, with the options that it has there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from deconattn.exhibits import EXHIBITS
from deconattn.experiment.section import Section, Variant


class ExhibitSettings(Section):
    """Which tables and figures to draw; null: not drawn."""

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        """Names of the exhibits to draw, in the order of the registry."""
        return (name for name in type(self).model_fields if getattr(self, name) is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def models_of(self, name: str) -> list[str]:
        """Models that the exhibit `name` shows."""
        options = getattr(self, name)
        return list(options.models) if hasattr(options, "models") else [options.model]


SECTIONS: dict[str, type[Section]] = {}
"""The options of each exhibit; those with the same options share a class."""
for _name, _exhibit in EXHIBITS.items():
    _alike = [other for other in EXHIBITS if EXHIBITS[other].options == _exhibit.options]
    _options: dict[str, Any] = dict(_exhibit.options)
    if "variants" in _options:
        _options["variants"] = list[Variant] | None, _options["variants"][1]
    SECTIONS[_name] = SECTIONS.get(_alike[0]) or create_model(
        f"{_name.title().replace('_', '')}Options",
        __base__=Section,
        __doc__=f"Options of {', '.join(_alike)}.",
        **_options,
    )

if TYPE_CHECKING:
    Exhibits = ExhibitSettings
else:
    _FIELDS = {
        name: (each | None, Field(None, description=EXHIBITS[name].description)) for name, each in SECTIONS.items()
    }
    Exhibits = create_model("Exhibits", __base__=ExhibitSettings, __doc__=ExhibitSettings.__doc__, **_FIELDS)
