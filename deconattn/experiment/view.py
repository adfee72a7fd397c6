"""The plain data of a config with what is wrong in it left out: what the checks across sections read."""

from __future__ import annotations

from typing import Any

from deconattn.experiment.sources import Section, whole
from deconattn.experiment.yaml_lines import Keys


class View:
    """The plain data of a config without what is known to be wrong in it.

    Args:
        data: the config as it was read.
        bad: keys of the values that the schema has refused.
    """

    def __init__(self, data: dict[str, Any], bad: set[Keys]) -> None:
        self.data, self.bad = data, bad

    def get(self, *keys: str | int) -> Any:
        """Value at `keys`; None where it is null, not given, or wrong."""
        value: Any = self.data
        for depth, key in enumerate(keys, 1):
            inside = key in value if isinstance(value, dict) else isinstance(value, list) and int(key) < len(value)
            if not inside or keys[:depth] in self.bad:
                return None
            value = value[key]
        return whole(value)

    def items(self, *keys: str | int) -> list[tuple[Keys, Any]]:
        """Items of a list, or keys of a mapping, that are right themselves, each with its keys."""
        value = self.get(*keys)
        names = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        found = [((*keys, name), value[name] if isinstance(value, list) else name) for name in names]
        return [(at, whole(item)) for at, item in found if at not in self.bad]

    def section(self, schema: type[Section], *keys: str | int) -> dict[str, Any]:
        """All fields of a section, by default where not given; None where wrong or missing."""
        values = {}
        for name, field in schema.model_fields.items():
            if self.is_given(*keys, name) or (*keys, name) in self.bad or field.is_required():
                values[name] = self.get(*keys, name)
            else:
                values[name] = field.get_default(call_default_factory=True)
        return values

    def is_given(self, *keys: str | int) -> bool:
        """Whether something is written at `keys`, be it wrong."""
        value: Any = self.data
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    @property
    def models(self) -> list[str]:
        """Names of the models, those with errors too."""
        models = self.data.get("models")
        return list(models) if isinstance(models, dict) else []

    def has_model(self, name: str) -> bool:
        """Whether a model is defined; taken for granted where none is, which is an error of its own."""
        return name in self.models or not self.models
