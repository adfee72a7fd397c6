"""Checkpoints that are whole or absent: weights, optimiser, one integer, RNG, the curve so far.

A checkpoint is a folder `checkpoints/step-NNNNNNNN`. It is written under a temporary name, flushed and renamed, and
carries a manifest of SHA-256 sums. The last two are kept. Loading takes the newest that is whole and this run's; what
is damaged or another's is named and the one before is taken. Once the next one is written, what was rejected is set
aside as `rejected-step-NNNNNNNN`: it no longer counts, and none but the user deletes it, who knows what it may be good
for. What is written does not depend on the number of processes or on how they share the model, so that a run may go
on with others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deconattn.errors import UserError
from deconattn.files import flush_to_disk, sha256_file
from deconattn.training.distributed import part, whole

KEEP = 2
RNG = "rng"
FILES = ("model.safetensors", "optimizer.safetensors", "train.parquet", "state.json")
Report = Callable[[str], None]


def gather(
    model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the model and of the optimiser in main memory. Every process asks; who does not `keep` gets none."""
    weights = {name: _on_cpu(tensor, keep) for name, tensor in _each_once(model).items()}
    moments = {
        f"{name}/{key}": _on_cpu(value, keep)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    if not keep:
        return {}, {}
    return weights, {RNG: torch.get_rng_state(), **moments}


def write(
    folder: Path,
    tensors: tuple[dict[str, Tensor], dict[str, Tensor]],
    *,
    step: int,
    spec_hash: str,
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    seconds: float,
    rejected: list[Path],
    report: Report,
) -> Path:
    """Write `folder/step-NNNNNNNN` after `step` updates and drop all before it but one; returns its path.

    `rejected` are those that loading found unusable: they are set aside, and taken from the list.

    Raises:
        UserError: the disk is full or the folder cannot be written; the checkpoints that were there are as they were.
    """
    final = at_step(folder, step)
    temporary = folder / f".{final.name}.{os.uname().nodename}-{os.getpid()}.tmp"
    weights, moments = tensors
    try:
        for stale in folder.glob(".step-*.tmp"):  # of an owner that was killed while it wrote
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(weights, temporary / "model.safetensors")
        save_file(moments, temporary / "optimizer.safetensors")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary / "train.parquet")
        state = {"step": step, "spec_hash": spec_hash, "seconds": seconds}
        (temporary / "state.json").write_text(json.dumps(state))
        files = sorted(temporary.iterdir())
        manifest = {path.name: sha256_file(path) for path in files}
        (temporary / "manifest.json").write_text(json.dumps(manifest))
        for path in [*files, temporary / "manifest.json", temporary]:
            flush_to_disk(path)
        if final.exists():  # rejected, or it would have been loaded
            set_aside(final, rejected, report)
        os.replace(temporary, final)
        flush_to_disk(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = [path for path in checkpoints(folder) if path not in rejected]
        kept = f"the last one is {last[-1].name}" if last else "there is none before it"
        raise UserError(f"{final}: the checkpoint could not be written ({_why(error)}); {kept}") from None
    keep_last(final, KEEP, rejected, report)
    return final


def _why(error: OSError | SafetensorError) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def keep_last(newest: Path, count: int, rejected: list[Path], report: Report) -> None:
    """Set aside what was rejected, then delete what is older than `newest` but for the last `count`, `newest` among them.

    Nothing is deleted while `newest` is not there, and never what was rejected: it is not the training that knows
    whether it is good for something else, such as the tokens that it was trained on.
    """
    if not newest.is_dir():
        return
    for path in list(rejected):
        try:
            set_aside(path, rejected, report)
        except OSError as error:
            report(f"{path}: could not be set aside ({_why(error)}); it does not count")
    older = [path for path in checkpoints(newest.parent) if _step(path) < _step(newest) and path not in rejected]
    for old in older[: len(older) - (count - 1)]:
        shutil.rmtree(old, ignore_errors=True)


def set_aside(path: Path, rejected: list[Path], report: Report) -> None:
    """Give a rejected checkpoint a name under which it does not count, and take it from the list."""
    names = (f"rejected-{path.name}{suffix}" for suffix in ("", *(f".{number}" for number in range(2, 1000))))
    place = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    os.rename(path, place)
    if path in rejected:
        rejected.remove(path)
    report(f"{path}: set aside as {place.name}, which may be deleted")


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint folders, oldest first."""
    return sorted((path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)), key=_step)


def at_step(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return folder / f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def load_newest(
    folder: Path,
    *,
    spec_hash: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    report: Report,
) -> tuple[int, float, list[dict[str, Any]], list[Path]]:
    """Restore the newest whole checkpoint of this run.

    Returns (updates done, seconds spent, rows of the curve, newer ones that were rejected), all zero without one.
    """
    found, rejected = checkpoints(folder), []
    while found:
        candidate = found.pop()
        problem = _problem(candidate, spec_hash, model)
        if problem:
            rejected.append(candidate)
            report(f"{candidate}: {problem}; going on from the {'checkpoint before it' if found else 'beginning'}")
            continue
        state = json.loads((candidate / "state.json").read_text())
        restore_model(model, load_file(candidate / "model.safetensors"))
        _restore_optimizer(model, optimizer, load_file(candidate / "optimizer.safetensors"))
        return state["step"], state["seconds"], pq.read_table(candidate / "train.parquet").to_pylist(), rejected
    return 0, 0.0, [], rejected


def _problem(candidate: Path, spec_hash: str, model: nn.Module) -> str | None:
    """Why a checkpoint is not to be used; all is asked before anything of it is put into the model."""
    try:
        manifest = json.loads((candidate / "manifest.json").read_text())
        for name in FILES:
            if sha256_file(candidate / name) != manifest.get(name):
                return f"{name} is damaged (its SHA-256 is not the manifest's)"
        state = json.loads((candidate / "state.json").read_text())
        if state["spec_hash"] != spec_hash:
            return f"belongs to spec {state['spec_hash']}, this run is {spec_hash}"
        if state["step"] != _step(candidate):
            return f"holds step {state['step']}, which is not its name's"
        with safe_open(candidate / "model.safetensors", "pt") as weights:
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
        if shapes != {name: tuple(tensor.shape) for name, tensor in _each_once(model).items()}:
            return "holds the weights of another model"
    except FileNotFoundError as error:
        return f"{Path(error.filename or candidate).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"not readable ({' '.join(str(error).split())})"
    return None


def _on_cpu(tensor: Tensor, keep: bool) -> Tensor:
    tensor = whole(tensor.detach())
    return tensor.cpu().contiguous() if keep else tensor.new_empty(0)


def _each_once(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once (a tied head is the embedding under a second name)."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name in tensors}


def save_model(model: nn.Module, path: Path) -> None:
    """Write the weights as transformers reads them: one safetensors file, shared tensors once."""
    write_weights({name: _on_cpu(tensor, True) for name, tensor in _each_once(model).items()}, path)


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write gathered weights as transformers reads them."""
    save_file(weights, path, metadata={"format": "pt"})


@torch.no_grad()
def restore_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fill parameters and buffers from gathered tensors."""
    for name, tensor in _each_once(model).items():
        tensor.copy_(part(tensors[name], tensor))


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors.pop(RNG))
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        parameter = parameters[name]
        # The step counter of the fused optimiser lives beside its parameter, like the moments, but is one number.
        optimizer.state[parameter][field] = part(value, parameter) if value.dim() else value.to(parameter.device)
