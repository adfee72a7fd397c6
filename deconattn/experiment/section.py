"""What every part of the settings is made of: a strict pydantic model, and the kinds of values in it."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deconattn import mixers
from deconattn.nearest import not_one_of

Keys = tuple[str | int, ...]
"""Path of a value in a config: keys of mappings, indices of lists counted from 0."""


class Section(BaseModel):
    """A part of the settings. Unknown keys and wrong types are errors, nothing is converted, nothing changes later.

    If the validation context is a dict, it gets the class of each mapping by the mapping's `id`, for messages.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _note_class(cls, data: Any, info: ValidationInfo) -> Any:
        if info.context is not None:
            info.context[id(data)] = cls
        return data


def sections(annotation: Any) -> list[type[Section]]:
    """The sections that an annotation names, in order: A and B of `A | B | None`, A of `dict[str, A]`."""
    if get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []
    return [section for part in get_args(annotation) for section in sections(part)]


def given(section: Section) -> dict[str, Any]:
    """What a config gives for a section, without defaults, in the schema's order."""
    return {name: getattr(section, name) for name in type(section).model_fields if name in section.model_fields_set}


def _whole(value: Any) -> Any:
    """15e9 is a whole number, although YAML reads a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _each_once(values: list[Any]) -> list[Any]:
    for index, value in enumerate(values):
        if value in values[:index]:
            error = PydanticCustomError("value_error", "named twice", {"error": f"{value!r} is named twice"})
            # at the item; a ValueError would be at the list
            raise ValidationError.from_exception_data("list", [{"type": error, "loc": (index,), "input": value}])
    return values


def _known_variant(name: str) -> str:
    if name not in mixers.names():
        raise ValueError(not_one_of(name, "variant", mixers.names()))
    return name


_AS_WHOLE = BeforeValidator(_whole)  # last, so that the bounds are the number's own, in the JSON schema too
Positive = Annotated[int, Field(gt=0), _AS_WHOLE]
Count = Annotated[int, Field(ge=0), _AS_WHOLE]
Seed = Annotated[int, Field(ge=0, lt=2**63), _AS_WHOLE]
"""A seed: torch and the tables of results hold it in 64 bits."""
Limit = Annotated[int, Field(gt=0, lt=2**63), _AS_WHOLE]
"""A number of items: as wide as its column in the tables of results."""
VocabularySize = Annotated[int, Field(ge=257), _AS_WHOLE]
Length = Annotated[int, Field(ge=2), _AS_WHOLE]
PositiveReal = Annotated[float, Field(gt=0)]
NonNegativeReal = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Betas = list[Annotated[float, Field(ge=0, lt=1)]]
Text = Annotated[str, Field(min_length=1)]
Variant = Annotated[str, Field(min_length=1), AfterValidator(_known_variant)]
EachOnce = AfterValidator(_each_once)
"""For a list that names nothing twice."""
