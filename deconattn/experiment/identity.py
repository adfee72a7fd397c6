"""Spec and path of everything that a configuration names: data, runs, tables and figures.

Every result is a folder whose name ends in a hash of its spec: the settings that can change it, the digest of the code that
it can reach, and the folders that it was made from. A change of one of these gives a new folder beside the old one; taking
the change back finds the old one again. What only changes how fast something is computed is no part of a spec.
"""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deconattn.exhibits import EXHIBITS
from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact, folders_of, make_artefact
from deconattn.experiment.code import PACKAGE, keep, reach, roots_of
from deconattn.experiment.data_identity import RESULTS, DataIdentity, reads_text
from deconattn.experiment.grid import Run
from deconattn.experiment.load import Settings
from deconattn.experiment.record import is_done, last_attempt, short_hash
from deconattn.experiment.sources import definitions_of
from deconattn.files import sha256_file


class Identity(DataIdentity):
    """Everything that a configuration names; with `partial`, tables of what is finished now, each gap with its reason."""

    def __init__(self, settings: Settings, partial: bool = False) -> None:
        super().__init__(settings)
        self.partial = partial

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
            *self.token_tables.values(),
            *self.side_texts.values(),
            *self.trainings.values(),
            *self.evaluations.values(),
            *self.baselines,
            *self.analyses.values(),
            *self.costs.values(),
            *self.tables.values(),
            *self.exhibits.values(),
            *([self.page] if self.exhibits else []),
        ]
        found = {str(one.folder): one for one in everything}
        keep()
        return found

    # ---- runs ---------------------------------------------------------------------------------------------------------
    @cached_property
    def trainings(self) -> dict[Run, Artefact]:
        """The training of each run of the grid."""
        found = {}
        for run in self.runs:
            facts: dict[str, Any] = {
                "model": {"name": run.model, **grid.model_fields(self.settings, run)},
                "seed": run.seed,
                "training": grid.training_of(self.settings, run).model_dump(mode="json"),
                "tokens": {"id": self.token_tables[run.model].folder.name},
            }
            sources: dict[str, Any] = {
                "tokens": self.token_tables[run.model],
                "tokenizer": self._tokenizer_of(run.model),
            }
            if reads_text(run):
                sources["side_text"] = self.side_texts[run.model]
            found[run] = make_artefact("pretrain", RESULTS / "runs" / run.name, facts, run.model, **sources)
        return found

    def _items(self, tokens: Artefact) -> dict[str, Any]:
        """Where the items of the tasks are, and their tokenizer."""
        tasks = {task: self.tasks.get(task, tokens) for task in self.settings.evaluation.tasks}
        return {"tokenizer": self.tokenizer, "tasks": tasks}

    @cached_property
    def _limits(self) -> dict[str, int | None]:
        return {task: self.settings.evaluation.limit_of(task) for task in self.settings.evaluation.tasks}

    @cached_property
    def baselines(self) -> list[Artefact]:
        """Values of random guessing and of the majority class; those of recall are in its token table."""
        facts = {"limits": self._limits, **definitions_of(self._limits, self.settings.evaluation.definitions)}
        found = {
            tokens if self.settings.is_recall(model)
            else make_artefact("baselines", RESULTS / "baselines" / "items", facts, **self._items(tokens)): None
            for model, tokens in self.token_tables.items()
        }  # fmt: skip
        return list(found)

    def _of_run(self, stage: str, name: str, run: Run, facts: dict[str, Any], **sources: Any) -> Artefact:
        training = self.trainings[run]
        facts = {"model": {"variant": run.variant, "layout": run.layout}, **facts}
        return make_artefact(stage, training.folder / name, facts, run.model, run=training, **sources)

    @cached_property
    def evaluations(self) -> dict[Run, Artefact]:
        """The evaluation of each run."""
        evaluation, found = self.settings.evaluation, {}
        general: dict[str, Any] = {"tasks": list(evaluation.tasks), "limits": self._limits}
        general |= {"precision": evaluation.precision, **definitions_of(evaluation.tasks, evaluation.definitions)}
        for run in self.runs:
            tokens = self.token_tables[run.model]
            facts, sources = {**general, "context_lengths": grid.contexts_of(self.settings, run)}, self._items(tokens)
            if self.settings.is_recall(run.model):
                facts, sources = {"recall": True}, {"tokens": tokens}
            facts["modes"] = grid.modes_of(self.settings, run)
            found[run] = self._of_run("evaluate", "evaluation", run, facts, **sources)
        return found

    @cached_property
    def analyses(self) -> dict[Run, Artefact]:
        """The analysis of each run that an exhibit about attention shows."""
        exhibits = [name for name in self.settings.exhibits if EXHIBITS[name].analysed]
        wanted = {run for name in exhibits for run in grid.runs_of_exhibit(self.settings, name)}
        found = {}
        for run in (run for run in self.runs if run in wanted):
            facts = {"context_length": self.settings.tokens_of(run.model).context_length}
            found[run] = self._of_run("analyse", "analysis", run, facts, tokens=self.token_tables[run.model])
        return found

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
            found[model] = make_artefact("measure", RESULTS / "costs" / f"{model}-{device}", facts, model)
        return found

    # ---- tables and exhibits ----------------------------------------------------------------------------------------
    @cached_property
    def tables(self) -> dict[str, Artefact]:
        """Tables of the runs ("results"); where exhibits show them, with "attention" or "run_costs"; of measured "costs"."""
        facts: dict[str, Any] = {"runs": self._by_run(self.evaluations), "baselines": folders_of(self.baselines)}
        wanted = [*self.trainings.values(), *self.evaluations.values(), *self.baselines]
        found = {"results": self._table("results", wanted, facts)}
        kinds = set(map(_tables_of, self.settings.exhibits))
        if "attention" in kinds:
            facts = {"runs": self._by_run(self.analyses)}
            found["attention"] = self._table("attention", [*self.analyses.values()], facts, results=found["results"])
        if "run_costs" in kinds:
            variants = sorted({"standard", *(run.variant for run in self.runs)})
            lengths = {model: self.settings.tokens_of(model).context_length for model in self.token_tables}
            facts = {"variants": variants, "context_lengths": lengths}
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
        return make_artefact("aggregate", RESULTS / "tables" / name, facts, members=members, **sources)

    @cached_property
    def exhibits(self) -> dict[str, Artefact]:
        """Each table and figure."""
        found = {}
        for name in self.settings.exhibits:
            stage = "table" if EXHIBITS[name].is_table else "figure"
            options = getattr(self.settings.exhibits, name).model_dump(mode="json")
            facts: dict[str, Any] = {"exhibit": name, "options": options}
            reached = reach(*roots_of({"stage": stage, **facts}))["modules"]
            for module, file in (("published", "published_results.csv"), ("claims", "claims.csv")):
                if f"deconattn.report.{module}" in reached:
                    facts[module] = sha256_file(PACKAGE / "report" / file)
            if stage == "table":
                facts["templates"] = _templates()
            found[name] = make_artefact(stage, RESULTS / "exhibits" / name, facts, tables=self.tables[_tables_of(name)])
        return found

    @cached_property
    def page(self) -> Artefact:
        """The page of all tables and figures, and of all runs if any exhibit needs them."""
        facts = {"config": self.settings.name, "templates": _templates()}
        tables = self.tables["results"] if any(not EXHIBITS[name].costed for name in self.exhibits) else None
        return make_artefact("page", RESULTS / "exhibits/page", facts, exhibits=self.exhibits, tables=tables)


@cache
def _templates() -> str:
    return short_hash({path.name: sha256_file(path) for path in sorted((PACKAGE / "report/templates").iterdir())})


def _tables_of(exhibit: str) -> str:
    about = EXHIBITS[exhibit]
    return "costs" if about.costed else "attention" if about.analysed else "run_costs" if about.priced else "results"
