"""What the workflow's rules use: inputs, resources, and what is written when a launch starts.

The main process of a launch reads the config. A job that a cluster starts hours later reads only the `spec.json` of its
folder, which the main process wrote: an edited config changes nothing that is queued.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deconattn import bf16
from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.changes import slow_in_bf16, stop_if_retrained
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import Settings, flag, load_settings
from deconattn.experiment.pins import unpinned
from deconattn.experiment.record import SPEC, is_done, marker, read_object, write_spec
from deconattn.experiment.schema import ResourceSettings
from deconattn.files import atomic_write

FLAGS = ("partial", "full_dag")
DOWNLOADS = 4
"""Downloads at once; `--resources downloads=N` changes it."""
TOKENIZED_BYTES_PER_MINUTE = 60 * 0.4e6
"""A core tokenises 1.3 to 2.6 MB/s, nearly all of it within the library (docs/benchmarks.md); slower ones have time enough."""
DECONATTN = f"{shlex.quote(sys.executable)} -m deconattn"


class Rules:
    """What all rules share.

    Args:
        workflow: Snakemake's.

    Raises:
        UserError: a config with errors; a default storage provider, on which local results would not be found.
    """

    def __init__(self, workflow: Any) -> None:
        self.workflow = workflow
        self.is_main = bool(workflow.is_main_process)
        if workflow.storage_settings and workflow.storage_settings.default_storage_provider:
            raise UserError(
                "--default-storage-provider is not supported: results are looked up on the local file system"
            )
        given = {name: flag(name, workflow.config_settings.config.get(name, False)) for name in FLAGS}
        # As typed: Snakemake's own reading leaves numbers, null and booleans within a mapping or list as text.
        typed = workflow.config_settings.config_args or ()
        overrides = [entry for entry in typed if entry.partition("=")[0] not in FLAGS]
        # profiles/figures sets it as a resource, since a typed --config replaces that of a profile.
        resources = dict(getattr(workflow.resource_settings, "resources", None) or {})
        # Not in profiles/default, whose resources would take the place of those of another profile.
        if "downloads" not in resources:
            workflow.register_resource("downloads", DOWNLOADS)
        self.partial = given["partial"] or bool(resources.get("partial"))
        self.full_dag = given["full_dag"]
        self.configs = [_as_typed(Path(file)) for file in workflow.configfiles]
        self.settings: Settings | None = None
        self.artefacts: dict[str, Artefact] = {}
        self._guarded = self._warned = False
        if self.is_main:
            self.settings = load_settings(self.configs, overrides)
            if note := unpinned(self.settings, self.configs):
                print(note, file=sys.stderr)
            self.ident = Identity(self.settings, self.partial)
            self.artefacts = self.ident.artefacts
        self.resources = cache(self._resources)

    @property
    def launches(self) -> bool:
        """Whether jobs are about to run: in the main process, but for dry runs and drawings of the graph."""
        return self.is_main and self.workflow.executor_plugin is not None and not self.workflow.dryrun

    def inputs(self, folder: str, part: str = "") -> list[str]:
        """Markers of what a folder is made from; none for what is finished, so that what exists is up to date."""
        one = self.artefacts.get(folder)
        if one is None:
            return []
        done = is_done(folder, part)
        if done and not self.full_dag:
            if one.stage != "page":
                return []
            # The page reads the records of all exhibits: where -F makes these again, it waits for them.
            from snakemake.io import ancient

            return [ancient(str(marker(need))) for need in one.needs]
        if not done:
            self._warn_if_slow(one)
            if self.launches:
                self._prepare(one)
        numbers = [f"{number:04d}" for number in range(one.parts)] if not part else []
        markers = [marker(folder, number) for number in numbers] or [marker(need) for need in one.needs]
        if self.launches:
            _not_in_the_future(markers)
        return [str(path) for path in markers]

    def _warn_if_slow(self, one: Artefact) -> None:
        """Warn once if a run that is to be trained has a precision that is slow on this CPU."""
        if not self._warned and slow_in_bf16(self.ident, [one]):
            self._warned = True
            from snakemake.logging import logger

            logger.warning(bf16.SLOW)

    def _prepare(self, one: Artefact) -> None:
        """Write the spec that the job will read, once the guard lets trainings pass."""
        if one.stage == "pretrain" and not self._guarded:
            self._guarded = True
            try:
                stop_if_retrained(self.ident, " ".join(map(str, self.configs)))
            except UserError as error:
                sys.exit(str(error))
        write_spec(one.folder, {**one.spec, "resources": self.resources(str(one.folder)).model_dump(mode="json")})

    def _resources(self, folder: str) -> ResourceSettings:
        """Resources of the job of a folder: from the settings or, within a job, from what the launch wrote."""
        if one := self.artefacts.get(folder):
            assert self.settings is not None
            return grid.resources_of(self.settings, one.model or "")
        spec = read_object(Path(folder) / SPEC) or {}
        return ResourceSettings.model_validate(spec.get("resources") or {})

    def targets(self) -> list[str]:
        """Inputs of `rule all`. A launch also brings `results/reports/<config>` up to date here."""
        if not self.is_main:
            return []
        if self.launches:
            self.refresh()
        runs: Iterable[Artefact] = () if self.partial else self.ident.trainings.values()
        page = [self.ident.page] if self.ident.exhibits else []
        return [str(marker(one.folder)) for one in [*runs, *self.ident.exhibits.values(), *page]]

    def mirrored(self) -> list[str]:
        """Inputs of `rule mirror`: everything that needs a network."""
        return [str(marker(one.folder)) for one in self.artefacts.values() if one.stage in ("archive", "mirror")]

    def refresh(self) -> None:
        """Show the exhibits that the config names now."""
        if self.is_main:
            refresh_report(self.ident)

    def launcher(self, folder: str) -> str:
        """The command of a training: one process; torchrun for several; on several nodes a torchrun each, started by srun."""
        r = self.resources(folder)
        if r.processes == 1:
            return DECONATTN
        torchrun = f"{shlex.quote(sys.executable)} -m deconattn.training.launch {r.processes // r.nodes}"
        if r.nodes == 1:
            return torchrun
        # Only the whole job is counted in --gpus: a step that names none gets what the job has on each node.
        step = f"--nodes={r.nodes} --ntasks={r.nodes} --ntasks-per-node=1 --cpus-per-task={self.cpus(folder)}"
        return f"srun {step} --kill-on-bad-exit=0 {torchrun}"

    def training_options(self, folder: str) -> str:
        """Command-line options of the trainer."""
        r = self.resources(folder)
        named = "threads device sharding checkpoint_minutes micro_batch_size device_memory_gb device_tflops".split()
        given = {name: getattr(r, name) for name in named if getattr(r, name) is not None}
        options = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
        flags = [f"--{name.replace('_', '-')}" for name in ("compile", "keep_checkpoints") if getattr(r, name)]
        return " ".join([*options, *flags])

    def priority(self, folder: str) -> int:
        """Snakemake's priority of a training: small models before large ones, within one `standard` before the others."""
        return self._priorities.get(folder, 0)

    @cached_property
    def _priorities(self) -> dict[str, int]:
        costs = {}
        for one in (one for one in self.artefacts.values() if one.stage == "pretrain"):
            model, training = one.spec["model"], one.spec["training"]
            products = model["num_hidden_layers"] * model["hidden_size"] ** 2 * training["sequences_per_step"]
            costs[str(one.folder)] = products * training["steps"], model["variant"] != "standard"
        ranks = sorted(set(costs.values()), reverse=True)
        return {folder: ranks.index(cost) for folder, cost in costs.items()}

    def cpus(self, folder: str) -> int:
        """CPUs of a training on each node."""
        r = self.resources(folder)
        return r.processes * r.threads // r.nodes

    def memory(self, folder: str, name: str = "memory_mb") -> int:
        """Main memory in MB: a quarter more for each job that was killed there, as happens when memory runs out; at most double.

        A job that ends by itself, or is stopped in time, leaves its lock (`deconattn.training.lock`).
        """
        killed = sum(path.stat().st_mtime > 0 for path in Path(folder).glob("lock/*.json"))
        return int(getattr(self.resources(folder), name) * (4 + min(killed, 4)) // 4)

    def tokenize_minutes(self, folder: str, part: str) -> int:
        """Time limit of tokenising a part of the corpus: by the bytes of its text, or those that it may have."""
        if (one := self.artefacts.get(folder)) is None:  # within the job
            return 0
        corpus = self.artefacts[one.spec["made_from"]["corpus"]]
        manifest = read_object(corpus.folder / f"part-{part}.json") or {}
        size = manifest.get("bytes") or (corpus.spec["source"].get("max_bytes") or 0) / corpus.parts
        return 60 + round(size / TOKENIZED_BYTES_PER_MINUTE)

    def deadline(self, wildcards: Any, resources: Any) -> str:
        """The option by which a cluster's job stops before its time limit."""
        return f"--deadline-minutes {resources.runtime}" if self.workflow.remote_exec else ""

    def on_nodes(self, folder: str, value: Any) -> Any:
        """A resource of jobs on several nodes alone."""
        return value if self.resources(folder).nodes > 1 else None

    def of_run(self, name: str) -> Callable[..., Any]:
        """A function of a job's wildcards: one value of its resources."""
        return lambda wildcards: getattr(self.resources(wildcards.folder), name)


def _not_in_the_future(markers: Iterable[Path]) -> None:
    """Snakemake treats a job as failed if its inputs are newer than its outputs, for example after a copy from a machine whose
    clock is ahead. File times mean nothing else here."""
    now = time.time()
    for path in markers:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))


def _as_typed(file: Path) -> Path:
    """The path that the user typed, for messages; Snakemake makes it absolute."""
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file


def refresh_report(ident: Identity) -> list[Path]:
    """Copy the finished exhibits of a configuration into `results/reports/<config>`, and remove what it no longer names.

    A file that is already the same keeps its times. Returns the files that are shown.
    """
    wanted: dict[Path, Path] = {}
    for name, one in ident.exhibits.items():
        if is_done(one.folder):
            below = ident.report / ("tables" if one.stage == "table" else "figures")
            wanted |= {below / path.name: path for path in one.folder.glob(f"{name}.*")}
    if ident.exhibits and is_done(ident.page.folder):
        pages = [path for kind in ("html", "tex") for path in ident.page.folder.glob(f"*.{kind}")]
        wanted |= {ident.report / path.name: path for path in pages}
    ours = {*type(ident.settings.exhibits).model_fields, "page", "figures", "tables", "findings"}
    of_pages = [ident.report / "page.html", *ident.report.glob("*.tex")]
    for path in [*ident.report.glob("tables/*"), *ident.report.glob("figures/*"), *filter(Path.is_file, of_pages)]:
        if path not in wanted and path.stem in ours:
            path.unlink()
    for path, source in wanted.items():
        if not path.is_file() or path.read_bytes() != source.read_bytes():
            with atomic_write(path) as temporary:
                shutil.copyfile(source, temporary)
    return sorted(wanted)
