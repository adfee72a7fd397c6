"""All that a config may say, typed, with units and the paper's values as defaults (docs/method.md)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticKnownError

from deconattn.exhibits import MODES
from deconattn.experiment.exhibit_options import Exhibits
from deconattn.experiment.section import (
    Count,
    EachOnce,
    Fraction,
    Length,
    Limit,
    NonNegativeReal,
    Positive,
    PositiveReal,
    Section,
    Seed,
    Text,
    Variant,
    given,
)
from deconattn.experiment.sources import Corpus, RecallCorpus, Source, TaskName, Tasks, TaskText, Tokenizer
from deconattn.experiment.training_settings import BlockTraining, TrainingSettings, over
from deconattn.layouts import LAYOUTS

# Literal[*names] reads the tuple at run time, which type checkers do not follow
Mode = Literal[MODES]  # type: ignore[valid-type]


def _no_default(name: str) -> str:
    if name == "default":
        raise ValueError("'default' cannot name a model: it names the resources of all models")
    return name


def _new_layout(name: str) -> str:
    if name in LAYOUTS:
        raise ValueError(f"{name!r} is a layout already; give it another name")
    return name


ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$"), AfterValidator(_no_default)]
ConfigName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
LayoutName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$"), AfterValidator(_new_layout)]
Layers = Annotated[list[Positive], Field(min_length=1), EachOnce]


class TokensSettings(Section):
    """How the corpus becomes rows of tokens."""

    context_length: Positive = Field(description="Length of a training sequence, in tokens.")
    budget: Positive | None = Field(None, description="Tokens at which to cut the corpus; null: all of it.")
    heldout_fraction: Fraction = Field(0.05, description="Share of documents kept out of training.")


def _heads_fit(heads: int, info: ValidationInfo) -> int:
    hidden = info.data.get("hidden_size") or 2 * heads
    if hidden % heads:
        raise ValueError(f"{heads} heads do not divide hidden_size {hidden}")
    if hidden // heads % 2:
        raise ValueError(f"{heads} heads of hidden_size {hidden} have size {hidden // heads}; RoPE needs an even one")
    return heads


def _groups_fit(shared: int, info: ValidationInfo) -> int:
    if (heads := info.data.get("num_attention_heads")) and heads % shared:
        raise ValueError(f"{shared} does not divide num_attention_heads {heads}")
    return shared


class ModelSettings(Section):
    """The shape of a model, in Qwen2's field names (method.md, The base model)."""

    hidden_size: Positive = Field(description="Width of the residual stream.")
    intermediate_size: Positive = Field(description="Inner width of the feed-forward.")
    num_hidden_layers: Positive = Field(description="Number of layers.")
    num_attention_heads: Annotated[Positive, AfterValidator(_heads_fit)] = Field(description="Number of query heads.")
    num_key_value_heads: Annotated[Positive, AfterValidator(_groups_fit)] | None = Field(
        None, description="Key and value heads; null: as many as query heads."
    )
    max_position_embeddings: Positive = Field(2048, description="Longest training context and side stream, in tokens.")
    rope_theta: PositiveReal = Field(1e6, description="Base of the rotary position embedding.")
    rms_norm_eps: PositiveReal = Field(1e-6, description="Epsilon of RMSNorm.")
    tie_word_embeddings: bool = Field(False, description="Whether the output matrix is the embedding matrix.")
    initializer_range: PositiveReal = Field(0.02, description="Standard deviation of weights and random side streams.")
    qk_norm: bool = Field(False, description="RMSNorm on each head's queries and keys, as in Qwen3.")
    attention_bias: bool | None = Field(None, description="Bias on queries, keys, values; null: if not `qk_norm`.")
    pad_vocabulary_to: Positive = Field(128, description="Rows of the vocabulary matrix: a multiple of this.")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="Changes to the general training.")
    corpus: RecallCorpus | None = Field(None, description="Sequences of recall to train on; null: the general corpus.")
    tokens: TokensSettings | None = Field(None, description="Rows of that corpus; null: the general `tokens`.")


class Override(Section):
    """What a block changes for one of its variants."""

    training: BlockTraining = Field(default_factory=BlockTraining, description="Training settings, over the block's.")


class GridBlock(Section):
    """Every combination of these; `standard` has no layout and runs once per seed."""

    models: list[Text] = Field(min_length=1, description="Names from `models`.")
    variants: list[Variant] = Field(min_length=1, description="Names of the files in deconattn/mixers.")
    layouts: list[Text] = Field(["uniform"], min_length=1, description="Which layers stay standard; see above.")
    seeds: list[Seed] = Field([0], min_length=1, description="Seeds of initialisation and of the order of the data.")
    training: BlockTraining = Field(default_factory=BlockTraining, description="Training settings; a list is an axis.")
    overrides: dict[Text, Override] = Field({}, description="What differs for a variant, by its name.")


class EvaluationSettings(Section):
    """How trained models are evaluated."""

    tasks: Annotated[list[TaskText], EachOnce] = Field([], min_length=1, description="lm-eval's, yours, and heldout.")
    definitions: dict[TaskName, Text] = Field({}, description="Tasks of your own: name → YAML in lm-eval's form.")
    limit: Annotated[
        dict[Text, Limit | None],
        BeforeValidator(
            lambda limit: limit if isinstance(limit, dict) else {"default": limit},
            json_schema_input_type=Limit | None | dict[Text, Limit | None],
        ),
    ] = Field(
        {},
        description="Items per task (documents for wikitext, heldout): one number, or by task and `default`; null: all.",
    )
    context_lengths: Annotated[
        dict[Text, Annotated[list[Positive], Field(min_length=1)]],
        BeforeValidator(lambda lengths: {} if lengths is None else lengths),
    ] = Field({}, description="Context lengths by task, in tokens, also beyond that of training, the default.")
    precision: Literal["float32", "bf16"] = Field("float32", description="Arithmetic: bf16 is mixed precision.")
    modes: Annotated[list[Mode], EachOnce] = Field(
        list(MODES),
        min_length=1,
        description="full: as trained; skip, skip_mixer: hybrids without relaxed layers, or mixers; reweighted: of softplus.",
    )

    def limit_of(self, task: str) -> int | None:
        """Items of `task` that are scored; None for all."""
        return self.limit[task] if task in self.limit else self.limit.get("default")


class CostsSettings(Section):
    """At which sizes the costs of one layer's mixer are measured, for the models of Tables 5 to 8 and `figure_costs`."""

    lengths: Annotated[list[Length], EachOnce] = Field(
        [2**n for n in range(7, 14)], min_length=1, description="Sequence lengths in tokens."
    )
    batch_sizes: Annotated[list[Positive], EachOnce] = Field([1, 8], min_length=1, description="Sequences at once.")
    variants: Annotated[list[Variant], EachOnce] | None = Field(None, min_length=1, description="null: the grid's.")
    repeats: Positive = Field(5, description="Least number of timings; the median is kept.")


class ResourceSettings(Section):
    """How a run is carried out; never part of its identity."""

    processes: Positive = Field(1, description="Processes that train together, one a GPU.")
    nodes: Positive = Field(1, description="Nodes over which the processes are spread evenly (Slurm).")
    sharding: Literal["none", "full"] = Field("none", description="none: whole model on each GPU (DDP); full: FSDP2.")
    threads: Positive = Field(1, description="CPU threads of a process.")
    micro_batch_size: Positive | None = Field(None, description="Sequences a process holds; null: as many as fit.")
    device_memory_gb: PositiveReal | None = Field(None, description="Memory of a device; null: a GPU's own.")
    device_tflops: PositiveReal | None = Field(None, description="Peak of a device in 10¹² FLOP/s; null: from a table.")
    compile: bool = Field(False, description="Whether to use torch.compile.")
    evaluation_batch_size: Positive = Field(16, description="Sequences scored at once.")
    checkpoint_minutes: PositiveReal = Field(15.0, description="Minutes between two checkpoints.")
    keep_checkpoints: bool = Field(False, description="Whether a finished run keeps its last checkpoint.")
    gpus: Count = Field(0, description="GPUs that a training requests from the cluster: 0, or one a process.")
    memory_mb: Positive = Field(4000, description="Main memory of a training on each node, in MB.")
    runtime_minutes: Positive = Field(720, description="Limit of a training job; it is requeued and goes on.")
    evaluation_minutes: Positive = Field(120, description="Limit of a job that evaluates, analyses or measures.")
    evaluation_memory_mb: Positive = Field(8000, description="Main memory of such a job, in MB.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")


def _fits_the_corpus(value: Any, info: ValidationInfo) -> Any:
    """Text needs a tokenizer and evaluation sets; a recall corpus has none, nor a side text."""
    if (corpus := info.data.get("corpus")) is None:  # which is wrong itself
        return value
    is_given = bool(value.tasks) if isinstance(value, EvaluationSettings) else value is not None
    if isinstance(corpus, RecallCorpus):
        if is_given:
            raise ValueError("a corpus of kind recall has no text; must be left out")
    elif not is_given and info.field_name != "side_text":
        if isinstance(value, EvaluationSettings) and value.model_fields_set:
            raise ValueError("tasks is missing: the evaluation sets")
        raise PydanticKnownError("missing")
    return value


ForText = AfterValidator(_fits_the_corpus)


class Settings(Section):
    """One experiment: the text, the models, the grid of runs, what is measured and drawn, and with which resources."""

    name: ConfigName = Field(description="Name of `results/reports/<name>`: a-z, 0-9, -.")
    description: str = Field("", description="What the report says about it.")
    corpus: Corpus = Field(description="Text to train on.")
    tasks: Annotated[Tasks | None, ForText] = Field(
        None, validate_default=True, description="Where the evaluation sets come from; needed for text."
    )
    tokenizer: Annotated[Tokenizer | None, ForText] = Field(
        None, validate_default=True, description="Where the tokenizer comes from; needed for text."
    )
    side_text: Annotated[Source | None, ForText] = Field(
        None, description="fixedseqqk's text; null: the corpus' start."
    )
    tokens: TokensSettings = Field(description="How the corpus becomes rows of tokens.")
    models: dict[ModelName, ModelSettings] = Field(min_length=1, description="Model shapes, by name (a-z, 0-9, -, .).")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="The optimisation.")
    layouts: dict[LayoutName, Layers] = Field({}, description="Your own: layers that stay standard, counted from 1.")
    grid: list[GridBlock] = Field(min_length=1, description="Blocks of runs; a run that several name is done once.")
    evaluation: Annotated[EvaluationSettings, ForText] = Field(
        default_factory=EvaluationSettings, validate_default=True, description="How trained models are evaluated."
    )
    costs: CostsSettings = Field(default_factory=CostsSettings, description="At which sizes mixers are measured.")
    exhibits: Exhibits = Field(default_factory=Exhibits, description="Which tables and figures to draw.")
    redo_gpu_hours: NonNegativeReal = Field(8.0, description="GPU-hours that a change of code may repeat unasked.")
    resources: dict[str, ResourceSettings] = Field({}, description="How runs are carried out: `default`, and by model.")

    @cached_property
    def trainings(self) -> dict[str, TrainingSettings]:
        """Training of each model: its own settings over the general ones, `steps` resolved (see `resolved`)."""
        general = given(self.training)
        return {name: self.resolved(name, general, given(model.training)) for name, model in self.models.items()}

    def corpus_of(self, model: str) -> Corpus:
        """What a model is trained on."""
        return self.models[model].corpus or self.corpus

    def tokens_of(self, model: str) -> TokensSettings:
        """How that becomes rows of tokens."""
        return self.models[model].tokens or self.tokens

    def is_recall(self, model: str) -> bool:
        """Whether a model is trained on sequences of recall: no tokenizer, no evaluation sets."""
        return isinstance(self.corpus_of(model), RecallCorpus)

    def resolved(self, model: str, *levels: dict[str, Any]) -> TrainingSettings:
        """A model's training settings level over level, with `steps` resolved and `tokens` None.

        The length is resolved so that the same training, given in steps or in tokens, is the same run.
        """
        merged = over(*levels)
        training = TrainingSettings.model_validate(merged)
        steps = training.total_steps(self.tokens_of(model).context_length)
        return training.model_copy(update={"steps": steps, "tokens": None})
