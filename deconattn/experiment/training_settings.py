"""What a config may say of the optimisation: for all models, for one, and for a block of the grid (docs/method.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_origin

from pydantic import BeforeValidator, Field, create_model

from deconattn.experiment.section import Betas, Count, NonNegativeReal, Positive, PositiveReal, Section


class TrainingSettings(Section):
    """The optimisation, with the paper's values (method.md) as defaults. Exactly one of `steps` and `tokens` is given."""

    steps: Positive | None = Field(None, description="Number of updates.")
    tokens: Positive | None = Field(None, description="Length in tokens, instead of `steps`; rounded to whole updates.")
    sequences_per_step: Positive = Field(256, description="Sequences in an update, over all processes.")
    peak_learning_rate: PositiveReal = Field(4e-4, description="Learning rate after warm-up; then a cosine to zero.")
    warmup_steps: Count = Field(2000, description="Updates of linear warm-up.")
    betas: Betas = Field([0.9, 0.9999], min_length=2, max_length=2, description="AdamW's two betas.")
    eps: PositiveReal = Field(1e-8, description="AdamW's epsilon.")
    weight_decay: NonNegativeReal = Field(0.1, description="AdamW's weight decay.")
    gradient_clip: PositiveReal = Field(1.0, description="Largest norm of the whole gradient.")
    precision: Literal["bf16", "float32"] = Field("bf16", description="Arithmetic: bf16 is mixed precision (autocast).")
    heldout_every: Positive = Field(1000, description="Updates between two held-out losses.")
    heldout_documents: Positive | None = Field(None, description="Held-out documents read for that loss; null: all.")
    on_divergence: Literal["stop", "record"] = Field("stop", description="A loss not finite: fail or record it.")

    def total_steps(self, context_length: int) -> int:
        """Number of updates: `steps`, or the nearest to `tokens` (method.md, Training: 15e9 → 28,610, 45e9 → 85,831)."""
        if self.steps is not None:
            return self.steps
        tokens, per_step = self.tokens or 0, self.sequences_per_step * context_length
        return max(1, (2 * tokens + per_step) // (2 * per_step))


def _axis(name: str) -> Any:
    """A training setting in a grid block: one value, or a list of values that are an axis of the grid."""
    info = TrainingSettings.model_fields[name]
    inner = list if get_origin(info.annotation) is list else ()

    def as_list(value: Any) -> Any:
        several = isinstance(value, list) and (not inner or any(isinstance(item, inner) for item in value))
        return value if several else [value]

    one: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    many: Any = Annotated[
        list[one], Field(min_length=1), BeforeValidator(as_list, json_schema_input_type=one | list[one])
    ]
    return many, Field([], description=info.description)


BlockTraining: type[Section] = create_model(
    "BlockTraining",
    __base__=Section,
    __doc__="Training settings of a block's runs, over those of their models; a list of values is an axis of the grid.",
    **{name: _axis(name) for name in TrainingSettings.model_fields},
)


def over(*levels: dict[str, Any]) -> dict[str, Any]:
    """Training settings level over level; a level that gives a length, in steps or in tokens, replaces that before it."""
    merged: dict[str, Any] = {}
    for level in levels:
        lengths = {name: level.get(name) for name in ("steps", "tokens")}
        if any(value not in (None, [None]) for value in lengths.values()):
            merged |= {**level, **lengths}
        else:
            merged |= {name: value for name, value in level.items() if name not in lengths}
    return merged
