"""All that a config may say, typed, with units and the paper's values as defaults (SPEC §2, §5, §6)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from deconattn.experiment.exhibits import Exhibits
from deconattn.experiment.sources import (
    TASKS,
    Corpus,
    Count,
    Positive,
    Section,
    Source,
    Tasks,
    Text,
    Tokenizer,
)
from deconattn.layouts import LAYOUTS

MODES = ("full", "skip", "skip_mixer")
PositiveReal = Annotated[float, Field(gt=0)]
NonNegativeReal = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
# Literal[*names] reads the tuple at run time, which type checkers do not follow
Layout = Literal[LAYOUTS]  # type: ignore[valid-type]
Task = Literal[TASKS]  # type: ignore[valid-type]
TaskOrDefault = Literal[("default", *TASKS)]  # type: ignore[valid-type]
Mode = Literal[MODES]  # type: ignore[valid-type]


class TokensSettings(Section):
    """How the corpus becomes rows of tokens."""

    context_length: Positive = Field(description="Length of a training sequence, in tokens.")
    budget: Positive | None = Field(default=None, description="Tokens at which to cut the corpus; null: all of it.")
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="Fraction of the documents that is kept out of training."
    )


class TrainingSettings(Section):
    """The optimisation, with the paper's values as defaults. Exactly one of `steps` and `tokens` is given.

    Source: SPEC §5.
    """

    steps: Positive | None = Field(default=None, description="Number of updates.")
    tokens: Positive | None = Field(
        default=None,
        description="Length of training in tokens, instead of `steps`; the number of updates is the nearest whole one.",
    )
    sequences_per_step: Positive = Field(default=256, description="Sequences in an update, over all processes.")
    peak_learning_rate: PositiveReal = Field(
        default=4e-4, description="Learning rate at the end of warm-up; then half a cosine to zero."
    )
    warmup_steps: Count = Field(default=2000, description="Updates of linear warm-up.")
    betas: list[Beta] = Field(default=[0.9, 0.9999], min_length=2, max_length=2, description="AdamW's two betas.")
    eps: PositiveReal = Field(default=1e-8, description="AdamW's epsilon.")
    weight_decay: NonNegativeReal = Field(default=0.1, description="AdamW's weight decay.")
    gradient_clip: PositiveReal = Field(default=1.0, description="Largest norm of the whole gradient.")
    precision: Literal["bf16", "float32"] = Field(
        default="bf16", description="Arithmetic: bf16 is mixed precision (autocast)."
    )
    heldout_every: Positive = Field(default=1000, description="Updates between two held-out losses.")
    heldout_documents: Positive | None = Field(
        default=None, description="Held-out documents read for that loss; null: all."
    )
    on_divergence: Literal["stop", "record"] = Field(
        default="stop",
        description="A loss that is not finite: stop the run as failed, or record it as the run's result and end well.",
    )

    def total_steps(self, context_length: int) -> int | None:
        """Number of updates: `steps`, or the nearest to `tokens` (SPEC §5: 15e9 → 28,610, 45e9 → 85,831)."""
        if self.steps is not None or self.tokens is None:
            return self.steps
        return steps_for(self.tokens, self.sequences_per_step * context_length)


def steps_for(tokens: int, tokens_per_step: int) -> int:
    """Updates of `tokens_per_step` tokens nearest to `tokens` in all, at least 1."""
    return max(1, (2 * tokens + tokens_per_step) // (2 * tokens_per_step))


class ModelSettings(Section):
    """The shape of a model, in Qwen2's field names.

    Source: SPEC §2.
    """

    hidden_size: Positive = Field(description="Width of the residual stream.")
    intermediate_size: Positive = Field(description="Inner width of the feed-forward.")
    num_hidden_layers: Positive = Field(description="Number of layers.")
    num_attention_heads: Positive = Field(description="Number of query heads.")
    num_key_value_heads: Positive | None = Field(
        default=None, description="Number of key and value heads; null: as many as query heads."
    )
    max_position_embeddings: Positive = Field(
        default=2048,
        description="Longest context, in tokens; also the length of the side streams of rndembqk and fixedseqqk.",
    )
    rope_theta: PositiveReal = Field(default=1e6, description="Base of the rotary position embedding.")
    rms_norm_eps: PositiveReal = Field(default=1e-6, description="Epsilon of RMSNorm.")
    tie_word_embeddings: bool = Field(default=False, description="Whether the output matrix is the embedding matrix.")
    initializer_range: PositiveReal = Field(
        default=0.02, description="Standard deviation of the initial weights and of rndembqk's side stream."
    )
    qk_norm: bool = Field(default=False, description="RMSNorm on each head's queries and keys, as in Qwen3.")
    attention_bias: bool | None = Field(
        default=None, description="Bias on queries, keys, values; null: where `qk_norm` is off."
    )
    pad_vocabulary_to: Positive = Field(
        default=128, description="The vocabulary matrix is padded to a multiple of this many rows."
    )
    training: TrainingSettings = Field(
        default_factory=TrainingSettings,
        description="Training settings of this model; those not given are the general ones.",
    )


class GridBlock(Section):
    """Every combination of these; `standard` has no layout and is run once a seed."""

    models: list[Text] = Field(min_length=1, description="Names from `models`.")
    variants: list[Text] = Field(min_length=1, description="Names of the files in deconattn/mixers.")
    layouts: list[Layout] = Field(
        default=["uniform"], min_length=1, description="Which layers keep standard attention."
    )
    seeds: list[Count] = Field(
        default=[0], min_length=1, description="Seeds of initialisation and of the order of the data."
    )


def _as_limits(value: Any) -> Any:
    return value if isinstance(value, dict) else {"default": value}


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


class EvaluationSettings(Section):
    """What a trained model is asked."""

    tasks: list[Task] = Field(min_length=1, description="Evaluation sets.")
    limit: Annotated[dict[TaskOrDefault, Positive | None], BeforeValidator(_as_limits)] = Field(
        default={},
        description="Items a task (documents for wikitext, heldout): one number, or by task and `default`; null: all.",
    )
    context_lengths: Annotated[
        dict[Task, Annotated[list[Positive], Field(min_length=1)]], BeforeValidator(_or_empty)
    ] = Field(default={}, description="Context lengths of a task, in tokens; where none is given, that of training.")
    modes: list[Mode] = Field(
        default=list(MODES),
        min_length=1,
        description="full: as trained; hybrids also skip: without their simple layers, skip_mixer: without the mixers.",
    )

    def limit_of(self, task: str) -> int | None:
        """Items of `task` that are scored; None for all."""
        return self.limit[task] if task in self.limit else self.limit.get("default")


class CostsSettings(Section):
    """At which sizes the costs of one layer's mixer are measured, for the models of Tables 5 to 8 and `figure_costs`."""

    lengths: list[Annotated[int, Field(ge=2)]] = Field(
        default=[128, 256, 512, 1024, 2048, 4096, 8192],
        min_length=1,
        description="Lengths of a sequence, in tokens; they may be beyond a model's context.",
    )
    batch_sizes: list[Positive] = Field(default=[1, 8], min_length=1, description="Sequences at once.")
    variants: list[Text] | None = Field(
        default=None, min_length=1, description="Names of the files in deconattn/mixers; null: those of the grid."
    )
    repeats: Positive = Field(default=5, description="Least number of timings, of which the median is kept.")


class ResourceSettings(Section):
    """How a run is carried out; never part of its identity."""

    processes: Positive = Field(default=1, description="Processes that train together, one a GPU.")
    nodes: Positive = Field(default=1, description="Nodes over which the processes are spread evenly (Slurm).")
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="Whether each process holds the whole model (DDP), or weights and optimiser are sharded (FSDP2).",
    )
    threads: Positive = Field(default=1, description="CPU threads of a process.")
    micro_batch_size: Positive | None = Field(
        default=None, description="Sequences a process holds at once; null: as many of its share as fit into memory."
    )
    device_memory_gb: PositiveReal | None = Field(
        default=None,
        description="Memory of a device, from which a micro-batch is worked out; null: what the GPU says, no limit on a CPU.",
    )
    device_tflops: PositiveReal | None = Field(
        default=None,
        description="10¹² FLOPs a second that a device could do at most, for MFU; null: a table of GPUs, else no MFU.",
    )
    compile: bool = Field(default=False, description="Whether to use torch.compile.")
    evaluation_batch_size: Positive = Field(default=16, description="Sequences scored at once.")
    checkpoint_minutes: PositiveReal = Field(default=15.0, description="Minutes between two checkpoints.")
    gpus: Count = Field(default=0, description="GPUs of a training, asked of the cluster: 0, or one a process.")
    memory_mb: Positive = Field(default=4000, description="Main memory of a training on each node, in MB.")
    runtime_minutes: Positive = Field(
        default=720, description="Minutes of a training job; it saves and stops before, and a retry goes on from there."
    )
    evaluation_minutes: Positive = Field(default=120, description="Minutes of an evaluation job.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one.")


class Settings(Section):
    """One experiment: the text, the models, the grid of runs, what is measured and drawn, and with which resources."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = Field(
        description="Name of `results/reports/<name>`: a-z, 0-9, -."
    )
    description: str = Field(default="", description="What the report says about it.")
    corpus: Corpus = Field(description="Text to train on.")
    tasks: Tasks = Field(description="Where the evaluation sets come from.")
    tokenizer: Tokenizer = Field(description="Where the tokenizer comes from.")
    side_text: Source | None = Field(
        default=None, description="Text of fixedseqqk's fixed sequence; null: the corpus' first documents."
    )
    tokens: TokensSettings = Field(description="How the corpus becomes rows of tokens.")
    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")], ModelSettings] = Field(
        min_length=1, description="Shapes of models, by name (a-z, 0-9, - and .)."
    )
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="The optimisation.")
    grid: list[GridBlock] = Field(min_length=1, description="Blocks of runs; a run that two blocks name is done once.")
    evaluation: EvaluationSettings = Field(description="What a trained model is asked.")
    costs: CostsSettings = Field(
        default_factory=CostsSettings, description="At which sizes the costs of the mixers are measured."
    )
    exhibits: Exhibits = Field(default_factory=Exhibits, description="Which tables and figures to draw.")
    redo_gpu_hours: NonNegativeReal = Field(
        default=8.0,
        description="Finished work that a launch may do again, in GPU-hours; one that would do more stops and says so.",
    )
    resources: dict[str, ResourceSettings] = Field(
        default={}, description="How runs are carried out: `default`, and per model."
    )
