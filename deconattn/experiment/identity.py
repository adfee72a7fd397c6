"""Identity: the canonical spec of each thing that is computed, its hash, and where it lies.

A thing's name carries a hash of everything that can change it: settings, the code it can reach, what it is made
from. Changing one of them gives a new place beside the old one; changing it back finds the old one. What only
changes how fast a thing is computed is no part of it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.code import class_constant, code_digest
from deconattn.experiment.data_identity import (
    MIRROR,
    RESULTS,
    SIDE_CODE,
    TOKENIZER_CODE,
    DataIdentity,
    canonical,
    mirror_modules,
    short_hash,
)
from deconattn.experiment.grid import Run

__all__ = [
    "MIRROR", "RESULTS", "SIDE_CODE", "TOKENIZER_CODE", "Identity", "canonical", "mirror_modules", "short_hash", "spec_hash",
]  # fmt: skip


def spec_hash(spec: dict[str, Any]) -> str:
    """The hash that a run is named by: over all of its spec that can change a result."""
    plain = {key: value for key, value in spec.items() if key not in ("hash", "run")}
    plain["tokens"] = {"id": spec["tokens"]["id"]}
    # What is done about a loss that is not finite changes no result that is finite.
    plain["training"] = {**spec["training"], "on_divergence": None}
    return short_hash(plain)


class Identity(DataIdentity):
    """Ids, specs and paths of one configuration.

    Code that was adopted stands under the digest that the finished results were made with (see `adoptions`).
    """

    # ---- runs ---------------------------------------------------------------------------------------------------------------
    def run_spec(self, run: Run) -> dict[str, Any]:
        """The spec of a run, with its own hash and name: what the training job reads, and nothing else."""
        spec: dict[str, Any] = {
            "model": {"name": run.model, **grid.model_fields(self.settings, run)},
            "seed": run.seed,
            "training": grid.training_of(self.settings, run.model).model_dump(mode="json"),
            "tokens": {"id": self.tokens.name},
        }
        if class_constant(f"deconattn.mixers.{run.variant}", "side_stream") == "text":
            spec["side_text"] = self.side_id(spec["model"]["max_position_embeddings"])
        stem = f"{run.model}-{run.variant}-{run.layout}-s{run.seed}"
        code, folder = self._placed(
            self.training_code(run),
            lambda each: RESULTS / "runs" / f"{stem}-{spec_hash({**spec, 'code': each})}",
            "done.json", "spec.json", variant=run.variant,
        )  # fmt: skip
        spec["code"] = code
        return {**spec, "hash": folder.name.rpartition("-")[2], "run": folder.name}

    @staticmethod
    def training_code(run: Run) -> str:
        """Digest of the code that trains this run: the loop, the decoder, its own mixer, and standard's in a hybrid."""
        return code_digest(*Identity.training_modules(run))

    @staticmethod
    def training_modules(run: Run) -> list[str]:
        """What a training imports by name."""
        return ["deconattn.training.run", *Identity.mixer_modules(run)]

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
            "files": self.task_files,
            "tokenizer": self.tokenizer.name,
            "code": self.adoptions.first(code_digest(*self.evaluation_modules(run))),
        }

    @cached_property
    def task_files(self) -> dict[str, str]:
        """Parquet of each task: the mirror's, or the corpus' own held-out documents. Their paths say what they hold."""
        heldout = self.tokens / "heldout.parquet"
        return {task: str(self.tasks.get(task, heldout)) for task in self.settings.evaluation.tasks}

    @cached_property
    def baselines_spec(self) -> dict[str, Any]:
        """Everything that decides the values of random guessing and of the majority class."""
        return {
            "limits": {task: self.settings.evaluation.limit_of(task) for task in self.settings.evaluation.tasks},
            "files": self.task_files,
            "tokenizer": self.tokenizer.name,
            "code": code_digest("deconattn.evaluation.baselines"),
        }

    @staticmethod
    def evaluation_modules(run: Run) -> list[str]:
        """What an evaluation imports by name."""
        return ["deconattn.evaluation.run", *Identity.mixer_modules(run)]

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

    def analysis_spec(self, run_name: str) -> dict[str, Any]:
        """Everything that decides the look into a run's attention."""
        code = code_digest(*self.analysis_modules(self.run_of[run_name]))
        return {
            "context_length": self.settings.tokens.context_length,
            "heldout": str(self.tokens / "heldout.parquet"),
            "code": self.adoptions.first(code),
        }

    @staticmethod
    def analysis_modules(run: Run) -> list[str]:
        """What an analysis imports by name."""
        return ["deconattn.analysis.run", *Identity.mixer_modules(run)]

    @cached_property
    def specs(self) -> dict[str, dict[str, Any]]:
        """Specs of all runs of the configuration by run name."""
        self._ask_for_codes()
        specs = [self.run_spec(run) for run in self.runs]
        return {spec["run"]: spec for spec in specs}

    def _ask_for_codes(self) -> None:
        """Have the code of jobs that belong to no run looked up, so that a launch tells them with the rest (`code.memo`)."""
        from deconattn.experiment.measured import measure_code, measured_models  # which imports this module

        for model in measured_models(self.settings):
            measure_code(self.settings, model)
        assert self.baselines_spec["code"]

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
