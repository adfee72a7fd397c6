"""Spec and path of everything that a configuration names: data, runs, tables and figures.

Every result is a folder whose name ends in a hash of its spec: the settings that can change it, the digest of the code that
it can reach, and the folders that it was made from. A change of one of these gives a new folder beside the old one; taking
the change back finds the old one again. What only changes how fast something is computed is no part of a spec.
"""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deconattn.data.definitions import HELDOUT
from deconattn.exhibits import EXHIBITS
from deconattn.experiment import grid
from deconattn.experiment.code import PACKAGE, class_constant, code_of, modules, roots_of
from deconattn.experiment.grid import Run
from deconattn.experiment.load import Settings
from deconattn.experiment.record import Artefact, is_done, last_attempt, short_hash, spec_hash
from deconattn.experiment.sources import FileSums, RecallCorpus, definitions_of, label_of, source_of_task
from deconattn.files import sha256_file

MIRROR, RESULTS = Path("resources/mirror"), Path("results")
MIRROR_FORMAT = 2  # raised when a fix changes what mirroring writes: a mirror is named by it, not by its code
SIDE_TEXT_BYTES = 2**20  # text to mirror for a fixed sequence of some thousand tokens


class Identity:
    """Everything that a configuration names; with `partial`, tables of what is finished now, each gap with its reason."""

    def __init__(self, settings: Settings, partial: bool = False) -> None:
        self.settings, self.partial = settings, partial
        self.sums, self.runs = FileSums(), grid.runs(settings)

    @property
    def report(self) -> Path:
        """Where this configuration's tables and figures are shown."""
        return RESULTS / "reports" / self.settings.name

    @cached_property
    def artefacts(self) -> dict[str, Artefact]:
        """Folder → artefact, of everything, each after what it is made from."""
        mirrors = [*filter(None, [self.corpus, self.side_source]), *self.tasks.values()]
        everything = [
            *(self._archive(one.spec["source"]) for one in mirrors if one.needs),
            *mirrors,
            *filter(None, [self.tokenizer]),
            self.tokens,
            *self.side_texts.values(),
            *self.trainings.values(),
            *self.evaluations.values(),
            self.baselines,
            *self.analyses.values(),
            *self.costs.values(),
            *self.tables.values(),
            *self.exhibits.values(),
            *([self.page] if self.exhibits else []),
        ]
        return {str(one.folder): one for one in everything}

    def _make(
        self, stage: str, stem: Path, facts: dict[str, Any], model: str | None = None, parts: int = 0, **sources: Any
    ) -> Artefact:
        spec: dict[str, Any] = {"stage": stage, **facts}
        if found := {name: _folders(source) for name, source in sources.items() if source is not None}:
            spec["made_from"] = found
        if stage != "mirror":
            spec["code"] = code_of(spec)
        digest = spec_hash(spec)
        folder = stem.with_name(f"{stem.name}-{digest}")
        if stage == "pretrain":
            spec |= {"run": folder.name, "hash": digest}
        return Artefact(stage, folder, spec, model, parts)

    # ---- data -------------------------------------------------------------------------------------------------------
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
        return self._make("mirror", MIRROR / f"{task or what}-{label_of(source)}", facts, parts=parts, **sources)

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
        return self._make("tokenizer", RESULTS / "tokenizers" / f"bpe{source['vocab_size']}", facts, corpus=self.corpus)

    @cached_property
    def tokens(self) -> Artefact:
        """The token table."""
        corpus, facts = self.settings.corpus, self.settings.tokens.model_dump(mode="json")
        stem = RESULTS / "tokens" / f"{label_of(corpus.model_dump(mode='json'))}-{facts['context_length']}"
        if isinstance(corpus, RecallCorpus):
            return self._make("tokenize", stem, {**facts, "recall": corpus.model_dump(mode="json")})
        facts["parts"] = corpus.parts
        return self._make("tokenize", stem, facts, parts=corpus.parts, corpus=self.corpus, tokenizer=self.tokenizer)

    @cached_property
    def side_texts(self) -> dict[int, Artefact]:
        """Number of tokens → the fixed text of fixedseqqk, for each length that the grid's models need."""
        models = {run.model for run in self.runs if _reads_text(run)}
        label = label_of((self.settings.side_text or self.settings.corpus).model_dump(mode="json"))
        sources: dict[str, Any] = {"text": self.side_source or self.tokens, "tokenizer": self.tokenizer}
        return {
            length: self._make("side_text", RESULTS / "sidetexts" / f"{length}-{label}", {"length": length}, **sources)
            for length in sorted({self.settings.models[model].max_position_embeddings for model in models})
        }

    # ---- runs -------------------------------------------------------------------------------------------------------
    @cached_property
    def trainings(self) -> dict[Run, Artefact]:
        """The training of each run of the grid."""
        found = {}
        for run in self.runs:
            facts: dict[str, Any] = {
                "model": {"name": run.model, **grid.model_fields(self.settings, run)},
                "seed": run.seed,
                "training": grid.training_of(self.settings, run).model_dump(mode="json"),
                "tokens": {"id": self.tokens.folder.name},
            }
            sources: dict[str, Any] = {"tokens": self.tokens, "tokenizer": self.tokenizer}
            if _reads_text(run):
                sources["side_text"] = self.side_texts[facts["model"]["max_position_embeddings"]]
            found[run] = self._make("pretrain", RESULTS / "runs" / run.name, facts, run.model, **sources)
        return found

    @cached_property
    def _items(self) -> dict[str, Any]:
        """Where the items of the tasks are, and their tokenizer."""
        tasks = {task: self.tasks.get(task, self.tokens) for task in self.settings.evaluation.tasks}
        return {"tokenizer": self.tokenizer, "tasks": tasks}

    @cached_property
    def _limits(self) -> dict[str, int | None]:
        return {task: self.settings.evaluation.limit_of(task) for task in self.settings.evaluation.tasks}

    @cached_property
    def baselines(self) -> Artefact:
        """Values of random guessing and of the majority class; those of recall are in its token table."""
        if isinstance(self.settings.corpus, RecallCorpus):
            return self.tokens
        facts = {"limits": self._limits, **definitions_of(self._limits, self.settings.evaluation.definitions)}
        return self._make("baselines", RESULTS / "baselines" / "items", facts, **self._items)

    def _of_run(self, stage: str, name: str, run: Run, facts: dict[str, Any], **sources: Any) -> Artefact:
        training = self.trainings[run]
        facts = {"model": {"variant": run.variant, "layout": run.layout}, **facts}
        return self._make(stage, training.folder / name, facts, run.model, run=training, **sources)

    @cached_property
    def evaluations(self) -> dict[Run, Artefact]:
        """The evaluation of each run."""
        evaluation, found = self.settings.evaluation, {}
        general: dict[str, Any] = {"tasks": list(evaluation.tasks), "limits": self._limits}
        general |= {"precision": evaluation.precision, **definitions_of(evaluation.tasks, evaluation.definitions)}
        for run in self.runs:
            facts, sources = {**general, "context_lengths": grid.contexts_of(self.settings, run)}, self._items
            if isinstance(self.settings.corpus, RecallCorpus):
                facts, sources = {"recall": True}, {"tokens": self.tokens}
            facts["modes"] = grid.modes_of(self.settings, run)
            found[run] = self._of_run("evaluate", "evaluation", run, facts, **sources)
        return found

    @cached_property
    def analyses(self) -> dict[Run, Artefact]:
        """The analysis of each run that an exhibit about attention shows."""
        exhibits = [name for name in self.settings.exhibits if EXHIBITS[name].analysed]
        wanted = {run for name in exhibits for run in grid.runs_of_exhibit(self.settings, name)}
        facts = {"context_length": self.settings.tokens.context_length}
        runs = [run for run in self.runs if run in wanted]
        return {run: self._of_run("analyse", "analysis", run, facts, tokens=self.tokens) for run in runs}

    @cached_property
    def costs(self) -> dict[str, Artefact]:
        """The measured costs of each model that an exhibit about costs shows; models that need not be trained."""
        exhibits, found = [name for name in self.settings.exhibits if EXHIBITS[name].costed], {}
        in_grid = list(dict.fromkeys(variant for block in self.settings.grid for variant in block.variants))
        for model in dict.fromkeys(model for name in exhibits for model in self.settings.exhibits.models_of(name)):
            fields = grid.model_fields(self.settings, Run(model, "standard", "uniform", 0))
            # The layout says which layers have the mixer; what is measured is one of them.
            shape = {key: fields[key] for key in fields if key not in ("variant", "layout", "pad_vocabulary_to")}
            device = grid.resources_of(self.settings, model).device
            facts = {"model": {"name": model, **shape}, **self.settings.costs.model_dump(mode="json"), "device": device}
            facts["variants"] = facts["variants"] or in_grid
            found[model] = self._make("measure", RESULTS / "costs" / f"{model}-{device}", facts, model)
        return found

    # ---- tables and exhibits ----------------------------------------------------------------------------------------
    @cached_property
    def tables(self) -> dict[str, Artefact]:
        """Tables of the runs ("results"); where exhibits show them, with "attention" or "run_costs"; of measured "costs"."""
        facts: dict[str, Any] = {"runs": self._by_run(self.evaluations), "baselines": str(self.baselines.folder)}
        wanted = [*self.trainings.values(), *self.evaluations.values(), self.baselines]
        found = {"results": self._table("results", wanted, facts)}
        kinds = set(map(_tables_of, self.settings.exhibits))
        if "attention" in kinds:
            facts = {"runs": self._by_run(self.analyses)}
            found["attention"] = self._table("attention", [*self.analyses.values()], facts, results=found["results"])
        if "run_costs" in kinds:
            variants = sorted({"standard", *(run.variant for run in self.runs)})
            facts = {"variants": variants, "context_length": self.settings.tokens.context_length}
            found["run_costs"] = self._table("run_costs", [*self.trainings.values()], facts, results=found["results"])
        if "costs" in kinds:
            found["costs"] = self._table("costs", [*self.costs.values()], {})
        return found

    def _by_run(self, results: dict[Run, Artefact]) -> dict[str, str]:
        return dict(sorted((str(self.trainings[run].folder), str(one.folder)) for run, one in results.items()))

    def _table(self, kind: str, wanted: list[Artefact], facts: dict[str, Any], **sources: Any) -> Artefact:
        missing = {one for one in wanted if self.partial and not is_done(one.folder)}
        gaps = dict(sorted((str(one.folder), last_attempt(one.folder)) for one in missing))
        members = sorted((one for one in wanted if one not in missing), key=lambda one: str(one.folder))
        name = self.settings.name if kind == "results" else f"{self.settings.name}-{kind}"
        facts |= {"tables": kind, "gaps": gaps}
        return self._make("aggregate", RESULTS / "tables" / name, facts, members=members, **sources)

    @cached_property
    def exhibits(self) -> dict[str, Artefact]:
        """Each table and figure."""
        found = {}
        for name in self.settings.exhibits:
            stage = "table" if EXHIBITS[name].is_table else "figure"
            options = getattr(self.settings.exhibits, name).model_dump(mode="json")
            facts: dict[str, Any] = {"exhibit": name, "options": options}
            reached = modules(*roots_of({"stage": stage, **facts}))
            for module, file in (("published", "published_results.csv"), ("claims", "claims.csv")):
                if f"deconattn.report.{module}" in reached:
                    facts[module] = sha256_file(PACKAGE / "report" / file)
            if stage == "table":
                facts["templates"] = _templates()
            found[name] = self._make(stage, RESULTS / "exhibits" / name, facts, tables=self.tables[_tables_of(name)])
        return found

    @cached_property
    def page(self) -> Artefact:
        """The page of all tables and figures, and of all runs if any exhibit needs them."""
        facts = {"config": self.settings.name, "templates": _templates()}
        tables = self.tables["results"] if any(not EXHIBITS[name].costed for name in self.exhibits) else None
        return self._make("page", RESULTS / "exhibits/page", facts, exhibits=self.exhibits, tables=tables)


def _folders(source: Any) -> Any:
    """The folder of an artefact, or of each in a list or by name."""
    if isinstance(source, Artefact):
        return str(source.folder)
    if isinstance(source, dict):
        return {name: _folders(one) for name, one in source.items()}
    return [_folders(one) for one in source]


@cache
def _templates() -> str:
    return short_hash({path.name: sha256_file(path) for path in sorted((PACKAGE / "report/templates").iterdir())})


def _tables_of(exhibit: str) -> str:
    about = EXHIBITS[exhibit]
    return "costs" if about.costed else "attention" if about.analysed else "run_costs" if about.priced else "results"


def _reads_text(run: Run) -> bool:
    return class_constant(f"deconattn.mixers.{run.variant}", "side_stream") == "text"
