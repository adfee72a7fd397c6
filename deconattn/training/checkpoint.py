"""Checkpoints that are whole or absent: weights, optimiser, one integer, RNG, the curve so far.

A checkpoint is a folder `checkpoints/step-NNNNNNNN`. It is written under a temporary name, flushed and renamed, and
carries a manifest of SHA-256 sums. The last two are kept. Loading takes the newest that is whole; a damaged one is
named and the one before is taken. What is written does not depend on the number of processes or on how they share
the model, so that a run may go on with others.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deconattn.errors import UserError
from deconattn.files import flush_to_disk, read_json, sha256_file
from deconattn.training.distributed import part, whole

KEEP = 2
RNG = "rng"


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
) -> Path:
    """Write `folder/step-NNNNNNNN` after `step` updates and drop all but the last two; returns its path.

    Raises:
        UserError: the disk is full or the folder cannot be written; the checkpoints that were there are as they were.
    """
    final = folder / f"step-{step:08d}"
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
        if final.is_dir():  # damaged, or it would have been loaded
            shutil.rmtree(final)
        os.replace(temporary, final)
        flush_to_disk(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = checkpoints(folder)
        kept = f"the last one is {last[-1].name}" if last else "there is none before it"
        raise UserError(f"{final}: the checkpoint could not be written ({_why(error)}); {kept}") from None
    keep_last(folder, KEEP)
    return final


def _why(error: OSError | SafetensorError) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def keep_last(folder: Path, count: int) -> None:
    """Delete all but the last `count` checkpoints."""
    for old in checkpoints(folder)[:-count]:
        shutil.rmtree(old, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint folders, oldest first."""
    return sorted(folder.glob("step-*"))


def load_newest(
    folder: Path,
    *,
    spec_hash: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    report: Callable[[str], None],
) -> tuple[int, float, list[dict[str, Any]]]:
    """Restore the newest whole checkpoint; returns (updates done, seconds spent, rows of the curve), all zero without one."""
    for candidate in reversed(checkpoints(folder)):
        problem = _problem(candidate, spec_hash)
        if problem:
            report(f"{candidate}: {problem}; going on from the checkpoint before it")
            continue
        state = read_json(candidate / "state.json")
        restore_model(model, load_file(candidate / "model.safetensors"))
        _restore_optimizer(model, optimizer, load_file(candidate / "optimizer.safetensors"))
        return state["step"], state["seconds"], pq.read_table(candidate / "train.parquet").to_pylist()
    return 0, 0.0, []


def _problem(candidate: Path, spec_hash: str) -> str | None:
    try:
        manifest = json.loads((candidate / "manifest.json").read_text())
        for name, sha256 in manifest.items():
            if sha256_file(candidate / name) != sha256:
                return f"{name} is damaged (its SHA-256 is not the manifest's)"
        found = json.loads((candidate / "state.json").read_text())["spec_hash"]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"not readable ({error})"
    return None if found == spec_hash else f"belongs to spec {found}, this run is {spec_hash}"


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
