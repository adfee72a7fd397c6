"""The paper's tables and figures, as a config asks for them (SPEC §8)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from deconattn.experiment.sources import Section, Text


class ModelExhibit(Section):
    """A table or figure about one model: the tables, figures 1, 2, 6, 7 and 8, and `figure_costs`."""

    model: Text = Field(description="Name from `models`.")


class LayoutsExhibit(ModelExhibit):
    """A figure about the layouts of one model: figure 3."""

    variants: list[Text] = Field(min_length=1, description="Variants to draw.")


class ModelsExhibit(Section):
    """A figure about several models: figures 4 and 5."""

    models: list[Text] = Field(min_length=1, description="Names from `models`.")


class Exhibits(Section):
    """Which of the paper's tables and figures to draw, and one of the costs beside them; null: not drawn.

    Iterates over the names of those that are to be drawn, in this order.

    Source: SPEC §8.
    """

    table1: ModelExhibit | None = Field(default=None, description="All variants on the NLU tasks, WikiText, LAMBADA.")
    table2: ModelExhibit | None = Field(default=None, description="The same for the largest model.")
    table3: ModelExhibit | None = Field(default=None, description="The same with grouped queries.")
    table4: ModelExhibit | None = Field(default=None, description="Perplexity at several context lengths.")
    table5: ModelExhibit | None = Field(default=None, description="How the costs of every mixer grow.")
    table6: ModelExhibit | None = Field(default=None, description="FLOPs of every mixer, prefill and decoding.")
    table7: ModelExhibit | None = Field(default=None, description="Memory of every mixer in training.")
    table8: ModelExhibit | None = Field(default=None, description="What decoding keeps of the past.")
    figure1: ModelExhibit | None = Field(default=None, description="Attention indicators per layer, by variant.")
    figure2: ModelExhibit | None = Field(
        default=None, description="Pre-softmax scores per layer, uniform beside hybrid."
    )
    figure3: LayoutsExhibit | None = Field(default=None, description="The nine layouts of some variants.")
    figure4: ModelsExhibit | None = Field(default=None, description="All variants over sizes.")
    figure5: ModelsExhibit | None = Field(default=None, description="Training loss of every model.")
    figure6: ModelExhibit | None = Field(
        default=None, description="Pre-softmax scores per layer, uniform beside hybrid."
    )
    figure7: ModelExhibit | None = Field(
        default=None, description="Attention indicators per layer, uniform beside hybrid."
    )
    figure8: ModelExhibit | None = Field(
        default=None, description="Attention indicators per layer, uniform beside hybrid."
    )
    figure_costs: ModelExhibit | None = Field(
        default=None, description="Measured costs of every mixer over the length; not in the paper."
    )

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return (name for name in type(self).model_fields if getattr(self, name) is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def models_of(self, name: str) -> list[str]:
        """Models that the exhibit `name` shows."""
        section = getattr(self, name)
        return list(section.models) if isinstance(section, ModelsExhibit) else [section.model]
