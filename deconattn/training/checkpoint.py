"""Checkpoints that are whole or absent: weights, optimiser, RNG, the curve so far, and the number of updates.

A checkpoint is a folder `checkpoints/step-NNNNNNNN`. While the training goes on, it is written under a temporary name,
flushed and renamed, with a manifest of SHA-256 sums; the last two are kept. A run goes on from the newest one that is
whole and its own. Any newer one is set aside as `rejected-step-NNNNNNNN`: it no longer counts, but only the user, who
knows what it may be good for, deletes it. Its content does not depend on the number of processes or on how they share the
model, so a run may go on with others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deconattn.errors import UserError
from deconattn.files import flush_to_disk, sha256_file
from deconattn.training.parallel import Process, part, whole
from deconattn.training.schema import TRAIN

KEEP = 2
RNG = "rng"
FILES = ("model.safetensors", "optimizer.safetensors", "train.parquet", "state.json")


class Checkpoints:
    """The checkpoints of one run in `folder`; `key` names its spec and tokens, `report` prints a line."""

    def __init__(self, folder: Path, key: str, process: Process, report: Callable[[str], None]) -> None:
        self.folder, self.key, self.process, self.report = folder, key, process, report
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        found = [path for path in self.folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
        return sorted(found, key=_step)

    def keep_last(self, count: int) -> None:
        """Delete all but the newest `count`."""
        for old in self.paths()[:-count]:
            shutil.rmtree(old, ignore_errors=True)

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float, rows: list[dict[str, Any]],
        before_write: Callable[[], None], after: Callable[[float], None],
    ) -> None:  # fmt: skip
        """Copy the state after `step` updates and `seconds` of training; a thread of process 0 writes it.

        The former checkpoint is finished first. `before_write` is called, and raises, in the thread; so is `after`, with the
        seconds that it took. Once it is written, all checkpoints but the last two are dropped.

        Raises:
            UserError: as `finish`, for the former checkpoint.
        """
        self.finish()
        began, keep, rows = time.monotonic(), self.process.leads, list(rows)
        weights, moments = weights_of(model, keep), {RNG: torch.get_rng_state(), **_moments_of(model, optimizer, keep)}

        def write() -> None:
            before_write()
            self._write(weights, moments, {"step": step, "spec_hash": self.key, "seconds": seconds}, rows)
            took = time.monotonic() - began
            self.report(f"saved step-{step:08d} in {took:.1f} s")
            after(took)

        if keep:
            self._writing = self._thread.submit(write)

    def finish(self) -> None:
        """Wait until what was saved is written. All processes call it: torchrun ends all soon after the first one leaves.

        Raises:
            UserError: the disk is full or the folder cannot be written; the checkpoints that were there are as they were.
        """
        writing, self._writing = self._writing, None
        self.process.lead(lambda: writing and writing.result())

    @property
    def failed(self) -> bool:
        """Whether this process has tried to write a checkpoint in vain: `finish` will raise why."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def _write(
        self, weights: dict[str, Tensor], moments: dict[str, Tensor], state: dict[str, Any], rows: list[dict[str, Any]]
    ) -> None:
        final = self.folder / f"step-{state['step']:08d}"
        temporary = self.folder / f".{final.name}.{os.uname().nodename}-{os.getpid()}.tmp"
        try:
            for stale in self.folder.glob(".step-*.tmp"):  # of an owner that was killed while it wrote
                shutil.rmtree(stale, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_file(weights, temporary / "model.safetensors")
            save_file(moments, temporary / "optimizer.safetensors")
            pq.write_table(pa.Table.from_pylist(rows, schema=TRAIN), temporary / "train.parquet")
            (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
            manifest = {name: sha256_file(temporary / name) for name in FILES}
            (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            for path in (*temporary.iterdir(), temporary):
                flush_to_disk(path)
            os.replace(temporary, final)
            flush_to_disk(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            why = getattr(error, "strerror", None) or " ".join(str(error).split())
            kept = f"the last one is {self.paths()[-1].name}" if self.paths() else "there is none before it"
            raise UserError(f"{final}: the checkpoint could not be written ({why}); {kept}") from None
        self.keep_last(KEEP)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float, list[dict[str, Any]]]:
        """Restore the newest whole checkpoint of this run; process 0 chooses it for all.

        Returns (updates done, seconds spent, rows of the curve), all zero without one.

        Raises:
            UserError: an unusable checkpoint cannot be set aside, or this process cannot read the one that process 0 chose.
        """
        newest, state = self.process.lead(self._newest)
        if newest is None:
            return 0, 0.0, []
        try:
            weights, moments = (load_file(newest / name) for name in FILES[:2])
            rows = pq.read_table(newest / "train.parquet").to_pylist()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{newest}: process {self.process.rank} cannot read it ({error})") from None
        restore_weights(model, weights)
        _restore_optimizer(model, optimizer, moments)
        return state["step"], state["seconds"], rows

    def _newest(self) -> tuple[Path | None, dict[str, Any]]:
        found = self.paths()
        while found:
            path = found.pop()
            problem = self._problem(path)
            if problem is None:
                return path, json.loads((path / "state.json").read_text(encoding="utf-8"))
            self.report(f"{path}: {problem}; going on from the {'checkpoint before it' if found else 'beginning'}")
            self._set_aside(path)
        return None, {}

    def _problem(self, path: Path) -> str | None:
        """Why a checkpoint is not to be used."""
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            for name in FILES:
                if sha256_file(path / name) != manifest[name]:
                    return f"{name} is damaged (its SHA-256 is not the manifest's)"
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"not readable ({error})"
        if state["spec_hash"] != self.key:
            return f"belongs to spec {state['spec_hash']}, this run is {self.key}"
        if state["step"] != _step(path):
            return f"holds step {state['step']}, which is not its name's"
        return None

    def _set_aside(self, path: Path) -> None:
        names = (f"rejected-{path.name}{suffix}" for suffix in ("", *(f".{number}" for number in range(2, 1000))))
        place = next(path.with_name(name) for name in names if not path.with_name(name).exists())
        try:
            os.rename(path, place)
        except OSError as error:
            raise UserError(f"{path}: cannot be set aside ({error.strerror}); move it away") from None
        self.report(f"{path}: set aside as {place.name}, which may be deleted")


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


# ---- tensors ----------------------------------------------------------------------------------------------------------
def weights_of(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """The whole weights and buffers in main memory. All processes call it; one that does not `keep` them gets none."""
    found = {name: _on_cpu(tensor, keep) for name, tensor in _each_once(model).items()}
    return found if keep else {}


def _moments_of(model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Tensor]:
    found = {
        f"{name}/{key}": _on_cpu(value, keep)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return found if keep else {}


def _on_cpu(tensor: Tensor, keep: bool) -> Tensor:
    tensor = whole(tensor.detach())
    # A copy on a CPU too: what is written must not change while the training goes on.
    return tensor.to("cpu", copy=True).contiguous() if keep else tensor.new_empty(0)


def _each_once(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each shared tensor once (a tied head is the embedding under a second name)."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name in tensors}


@torch.no_grad()
def restore_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fill parameters and buffers with whole tensors."""
    for name, tensor in _each_once(model).items():
        tensor.copy_(part(tensors[name], tensor))


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors.pop(RNG))
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        # The fused optimiser's step counter lies beside its parameter, like the moments, but is one number.
        parameter = parameters[name]
        optimizer.state[parameter][field] = part(value, parameter) if value.dim() else value.to(parameter.device)
