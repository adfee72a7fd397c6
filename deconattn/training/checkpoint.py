"""Checkpoints that are whole or absent: weights, optimiser, one integer, RNG, the curve so far.

A checkpoint is a folder `checkpoints/step-NNNNNNNN`. It is written under a temporary name, flushed and renamed, and
carries a manifest of SHA-256 sums. The last two are kept. Loading takes the newest that is whole; a damaged one is
named and the one before is taken.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deconattn.errors import UserError
from deconattn.files import flush_to_disk, read_json, sha256_file

KEEP = 2


def save(
    folder: Path,
    *,
    step: int,
    spec_hash: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    seconds: float,
) -> Path:
    """Write `folder/step-NNNNNNNN` after `step` updates and drop all but the last two; returns its path."""
    final = folder / f"step-{step:08d}"
    if final.is_dir() and _problem(final, spec_hash) is None:
        return final
    temporary = folder / f".{final.name}.tmp"
    for stale in (temporary, final):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file(_tensors(model), temporary / "model.safetensors")
        save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary / "train.parquet")
        state = {"step": step, "spec_hash": spec_hash, "seconds": seconds}
        (temporary / "state.json").write_text(json.dumps(state))
        files = sorted(temporary.iterdir())
        manifest = {path.name: sha256_file(path) for path in files}
        (temporary / "manifest.json").write_text(json.dumps(manifest))
        for path in [*files, temporary / "manifest.json", temporary]:
            flush_to_disk(path)
        os.replace(temporary, final)
        flush_to_disk(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final}: the checkpoint could not be written ({error.strerror}); the one before it is intact"
        ) from None
    keep_last(folder, KEEP)
    return final


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
        model.load_state_dict(load_file(candidate / "model.safetensors"), strict=False)
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
    except (OSError, ValueError, KeyError) as error:
        return f"not readable ({error})"
    return None if found == spec_hash else f"belongs to spec {found}, this run is {spec_hash}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once (a tied head is the embedding under a second name)."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor.detach().contiguous().cpu()
    return kept


def save_model(model: nn.Module, path: Path) -> None:
    """Write the weights as transformers reads them: one safetensors file, shared tensors once."""
    save_file(_tensors(model), path, metadata={"format": "pt"})


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {"rng": torch.get_rng_state()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value.detach().contiguous().cpu()
    return tensors


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors.pop("rng"))
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        parameter = parameters[name]
        # The step counter of the fused optimiser lives beside its parameter, like the moments.
        optimizer.state[parameter][field] = value.to(parameter.device)
