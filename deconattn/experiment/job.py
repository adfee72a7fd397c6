"""What a job does around what it computes: before, it checks that its code is its spec's; after, it leaves a record."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.code import closure, code_digest
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.experiment.records import keep_code, sealed, sums, versions, write_record
from deconattn.experiment.states import OUTPUTS, weights_of
from deconattn.files import read_json, write_json

TOKENIZER = ("model/tokenizer.json", "model/tokenizer_config.json")
"""What lies beside the weights of a run that was given its tokenizer."""


def load_and_check(recorded: str, modules: Sequence[str], place: str) -> None:
    """Import all that `modules` can reach, then check that it is the recorded code, and write its functions down.

    In this order: what is edited after it was read here cannot be run, what was edited before is found out.
    """
    for module in closure(*modules):
        importlib.import_module(module)
    check_code(recorded, modules, place)
    keep_code(*modules)


def check_code(recorded: str, modules: Sequence[str], place: str) -> None:
    """Refuse to compute under the name of other code: an edit made while the job was waiting.

    Raises:
        UserError: the code here is neither `recorded` nor adopted as the same.
    """
    now = code_digest(*modules)
    if now != recorded and recorded not in Adoptions.load().same(now):
        raise UserError(
            f"{place}: written for code {recorded}, but the code here is {now}: it was edited since; start snakemake again"
        )


def run_of(spec: dict[str, Any]) -> Run:
    """The run of a spec."""
    model = spec["model"]
    return Run(model["name"], model["variant"], model["layout"], spec["seed"])


def read_spec(path: Path) -> dict[str, Any]:
    """The spec of a run.

    Raises:
        UserError: no such file, or one that is no spec.
    """
    spec = read_json(path)
    model = spec.get("model") if isinstance(spec, dict) else None
    for key in ("name", "variant", "layout"):
        if not isinstance(model, dict) or not isinstance(model.get(key), str):
            raise UserError(f"{path}: not the spec of a run: model.{key} is missing; start snakemake again")
    if not isinstance(spec.get("seed"), int):
        raise UserError(f"{path}: not the spec of a run: seed is missing; start snakemake again")
    return dict(spec)


def write_spec(spec: dict[str, Any], manifest_sha256: str, out: Path) -> None:
    """Write the spec of a run, with the sum of its tokens' manifest, and keep the digests of the code it will run."""
    modules = Identity.training_modules(run_of(spec))
    check_code(spec["code"], modules, str(out))
    keep_code(*modules)
    write_json(out, {**spec, "tokens": {**spec["tokens"], "manifest_sha256": manifest_sha256}})


def check_training(run_folder: Path) -> None:
    """Refuse to train a spec that was written for other code."""
    spec = read_json(run_folder / "spec.json")
    load_and_check(spec["code"], Identity.training_modules(run_of(spec)), str(run_folder / "spec.json"))


def record_training(run_folder: Path, device: str) -> None:
    """Complete done.json: code, versions, cost, and the sums of what the training wrote. Only the leading process does."""
    if os.environ.get("RANK", "0") != "0":
        return
    import pyarrow.parquet as pq

    path = run_folder / "done.json"
    done = read_json(path)
    if "files" in done:
        return
    spec = read_json(run_folder / "spec.json")
    seconds = pq.read_table(run_folder / "train.parquet", columns=["seconds"])["seconds"]
    done |= {
        "code": keep_code(*Identity.training_modules(run_of(spec))),
        "versions": versions("training"),
        "seconds": seconds[-1].as_py() if len(seconds) else 0.0,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": _device_name(device),
        "ended": time.time(),
        "files": sums(run_folder, [*(name for name in OUTPUTS["pretrain"] if name != "done.json"), *TOKENIZER]),
    }
    write_json(path, sealed(done))


def record_stage(
    run_folder: Path, stage: str, spec: dict[str, Any], modules: Sequence[str], device: str, started: float
) -> None:
    """Write the record of an evaluation or analysis beside its tables."""
    *files, record = OUTPUTS[stage]
    write_record(
        run_folder / record, {"evaluate": "evaluation", "analyse": "analysis"}[stage], modules, files,
        run=run_folder.name, spec=spec, weights=weights_of(run_folder),
        seconds=time.time() - started, device=_device_name(device), ended=time.time(),
    )  # fmt: skip


def start_stage(run_folder: Path, stage: str, spec: dict[str, Any]) -> tuple[list[str], float]:
    """Check the code of an evaluation or analysis and drop the record of the one before; its modules, and the time."""
    run = run_of(read_spec(run_folder / "spec.json"))
    modules = Identity.evaluation_modules(run) if stage == "evaluate" else Identity.analysis_modules(run)
    if stage == "evaluate":
        from deconattn.evaluation.quiet import offline

        offline()
    load_and_check(spec["code"], modules, f"{run_folder}: {stage}")
    (run_folder / OUTPUTS[stage][-1]).unlink(missing_ok=True)
    return modules, time.time()


def _device_name(device: str) -> str:
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name()
