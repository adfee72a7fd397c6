"""One start of the workflow: its settings, what is finished, the guard, and what its jobs are told.

A job that a cluster starts hours later reads the workflow again. It must not see a config or code that was edited
meanwhile, or it would compute one thing under the name of another: so a launch writes down what it knew
(`results/launches/<hash>.json`) and its jobs read that. The job's own process then compares the code that it is about
to run with the code of its spec, and refuses when they differ.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment import code, guard
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.content import Content
from deconattn.experiment.identity import RESULTS, Identity, canonical
from deconattn.experiment.settings import Settings, load_settings
from deconattn.experiment.states import State, States
from deconattn.files import read_json, write_json

FOLDER = RESULTS / "launches"
# "input" is not among them: a finished job has no inputs, so that nothing above it can start it again (`needed`).
TRIGGERS = ("mtime", "params", "software-env")


class Launch:
    """What all rules share.

    Args:
        workflow: Snakemake's.
    """

    def __init__(self, workflow: Any) -> None:
        self.workflow = workflow
        overrides = dict(workflow.config_settings.config)
        self.is_main = workflow.is_main_process
        # --config partial=true, or --resources partial=1 as profiles/figures has it, since a --config that is typed takes the
        # place of a profile's: draw what is there, list the gaps, wait for no run. Jobs are told in the first way.
        self.partial = overrides.pop("partial", bool(_resources(workflow).get("partial")))
        if not isinstance(self.partial, bool):
            raise UserError(f"--config partial={self.partial}: not allowed; must be true or false")
        told = overrides.pop("launch", None)
        self.configs = [_as_typed(Path(file)) for file in workflow.configfiles]
        if told:
            self.settings, self.ident = recalled(Path(told))
        else:
            self.settings = load_settings(self.configs, overrides)
            self.ident = Identity(self.settings)
        self.states = States(self.ident)
        self.states.asked = self._asked
        self.run_names = list(self.ident.specs)
        self._begun = False
        self._checked = False
        self._forced: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()
        self._told = str(told) if told else ""
        if self.is_main:
            self._tell_jobs()

    def _tell_jobs(self) -> None:
        """Have Snakemake name the launch's file to its jobs; it is written when something is about to run."""
        for run in self.run_names:
            self.ident.evaluation_spec(run), self.ident.analysis_spec(run)
        self._memory = {
            "settings": self.settings.model_dump(mode="json", exclude_unset=True),
            "adoptions": list(self.ident.adoptions.entries),
            "content": self.ident.content.known,
            "code": code.memo(),
        }
        name = hashlib.sha256(canonical(self._memory).encode()).hexdigest()[:16]
        self._path = FOLDER / f"{name}.json"
        settings = self.workflow.config_settings
        told = [f"partial={str(self.partial).lower()}", f"launch={self._path}"]
        settings.config_args = [*(settings.config_args or ()), *told]

    def needed(self, state: Callable[[], State], record: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of a job: none where its result is fresh, so that nothing above it matters; all where it is to run.

        A stale result that is there is named to Snakemake as to be made again: its own notes may be lost or too coarse.
        """
        if not self._decides():
            return dict(inputs)
        found = state()
        if found.fresh:
            return {}
        if found.status == "stale":
            self.workflow.dag.forcefiles.add(str(record))
        # Not `ancient` any more: Snakemake lets no job follow another, not even one that is to run, over files that are.
        return {name: _plain(paths) for name, paths in inputs.items()}

    def check_cost(self) -> None:
        """Stop a launch, and no dry run, that would redo too much finished work."""
        if self._decides() and not self._checked and not self.workflow.dryrun:
            self._checked = True
            try:
                guard.check(self.ident, self.states, " ".join(map(str, self.configs)))
            except UserError as error:
                sys.exit(str(error))

    def _asked(self, rule: str, files: Iterable[Path]) -> bool:
        """Whether -R, -f or -F names a rule or one of its files."""
        rules, named = self._forced
        if rule == "pretrain" and "pretrain_on_nodes" in rules:
            return True
        return rule in rules or (bool(named) and any(str(file) in named for file in files))

    def _decides(self) -> bool:
        """Whether this process decides what is run: not a job, not a drawing of the graph."""
        asked = self.workflow.dag_settings
        if not self.is_main or self.workflow.executor_plugin is None:
            return False
        if not self._begun:
            self._begun = True
            # Before `needed` names stale results there as well.
            dag = self.workflow.dag
            self._forced = frozenset(rule.name for rule in dag.forcerules), frozenset(map(str, dag.forcefiles))
            asked.rerun_triggers = frozenset(each for each in asked.rerun_triggers if str(each) in TRIGGERS)
            if not self.workflow.dryrun:
                write_json(self._path, self._memory)
        return True


def recalled(path: Path) -> tuple[Settings, Identity]:
    """Settings and identity as a launch knew them."""
    memory = read_json(path)
    code.restore(memory["code"])
    settings = Settings.model_validate(memory["settings"])
    return settings, Identity(settings, Adoptions.of(memory["adoptions"]), Content(None, memory["content"]))


def _resources(workflow: Any) -> dict[str, Any]:
    """What --resources names, which is known before the workflow is read; the rules allowed are not."""
    return dict(getattr(workflow.resource_settings, "resources", None) or {})


def _plain(paths: Any) -> str | list[str]:
    """Paths without Snakemake's flags."""
    return str(paths) if isinstance(paths, str | Path) else list(map(str, paths))


def _as_typed(file: Path) -> Path:
    """Snakemake gives absolute paths; a message names a file as the user does."""
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file
