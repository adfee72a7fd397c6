"""The training loop (SPEC §5): a pure function of the spec and the token table, interrupted and resumed anywhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deconattn.data.order import TokenTable, batch, rows_of_rank
from deconattn.errors import UserError
from deconattn.model import LanguageModel
from deconattn.training import checkpoint
from deconattn.training.distributed import Process, summed
from deconattn.training.schedule import learning_rate, make_optimizer
from deconattn.training.schema import TRAIN
from deconattn.training.stops import Stopped, StopWatch


class Diverged(Exception):
    """A loss or gradient that is not finite; the weights are those before the update."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.step = step


class TrainingLoss(nn.Module):
    """The summed loss as a module's forward, which is what DistributedDataParallel can wrap."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        """Summed cross-entropy of rows (B, L)."""
        return self.model.loss(rows, reduction="sum")


@dataclass
class Trainer:
    """What one training needs.

    `training` is the spec's section; `micro_batch_size` and `process` change nothing but how it is computed.
    """

    model: LanguageModel
    training: dict[str, Any]
    seed: int
    spec_hash: str
    table: TokenTable
    heldout: np.ndarray
    folder: Path
    process: Process
    stops: StopWatch
    micro_batch_size: int | None = None
    checkpoint_seconds: float = 900.0
    compiled: bool = False
    say: Callable[[str], None] = print
    on_start: Callable[[int], None] = lambda done: None
    on_step: Callable[[int, float, float], None] = lambda done, loss, speed: None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> list[dict[str, Any]]:
        """Train to the last step; returns the rows of train.parquet.

        Raises:
            Stopped: asked to stop; a checkpoint is saved.
            Diverged: not finite; the state before the update is saved.
        """
        steps, sequences = self.training["steps"], self.training["sequences_per_step"]
        targets = sequences * (self.table.context_length - 1)
        if self.process.world > sequences:
            raise UserError(
                f"{self.process.world} processes share {sequences} sequences a step: at most one process a sequence"
            )
        self.model.to(self.process.device)
        optimizer = make_optimizer(self.model, self.training)
        done, spent, self.rows = checkpoint.load_newest(
            self.folder / "checkpoints",
            spec_hash=self.spec_hash,
            model=self.model,
            optimizer=optimizer,
            report=self.say,
        )
        if done:
            self.say(f"resumed after step {done}")
        self.on_start(done)
        if self.compiled:
            self.model.model.compile()
        module: nn.Module = TrainingLoss(self.model)
        if self.process.world > 1:
            module = DistributedDataParallel(module, gradient_as_bucket_view=True)
        self.model.train()
        mine = rows_of_rank(sequences, self.process.rank, self.process.world)
        started = saved = time.monotonic()

        for step in range(done, steps):
            step_started = time.monotonic()
            reason = self.stops.wanted()
            if reason:
                self._save(step, optimizer, spent + step_started - started)
                raise Stopped(f"stopped by {reason} after step {step}")
            rate = learning_rate(
                step, peak=self.training["peak_learning_rate"], warmup_steps=self.training["warmup_steps"], steps=steps
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = batch(self.table, self.seed, step, sequences, mine)
            loss = self._backward(module, torch.from_numpy(rows).to(self.process.device), targets)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.training["gradient_clip"]).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._save(step, optimizer, spent + step_started - started)
                raise Diverged(step + 1, "the loss" if not math.isfinite(loss) else "the gradient")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            last, every = step + 1 == steps, self.training["heldout_every"]
            heldout = self.heldout_loss() if last or (every and (step + 1) % every == 0) else None
            now = time.monotonic()
            tokens = sequences * self.table.context_length
            self.rows.append(
                {
                    "step": step + 1,
                    "loss": loss,
                    "learning_rate": rate,
                    "grad_norm": norm,
                    "tokens": (step + 1) * tokens,
                    "tokens_per_second": tokens / (now - step_started),
                    "seconds": spent + now - started,
                    "heldout_loss": heldout,
                }
            )
            self.on_step(step + 1, loss, tokens / (now - step_started))
            # The last state is kept too: should a scheduler discard the results of a job that ended as its time ran out,
            # the next attempt writes them again at once.
            if last or now - saved > self.checkpoint_seconds:
                self._save(step + 1, optimizer, spent + now - started)
                saved = time.monotonic()
        return self.rows

    def _backward(self, module: nn.Module, rows: Tensor, targets: int) -> float:
        """Accumulate the gradient of the global batch's mean loss over micro-batches; returns that loss."""
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        pieces = rows.split(self.micro_batch_size or len(rows))
        for index, piece in enumerate(pieces):
            # Gradients are exchanged once a step, with the last micro-batch.
            quiet = isinstance(module, DistributedDataParallel) and index + 1 < len(pieces)
            with module.no_sync() if quiet else contextlib.nullcontext():  # type: ignore[operator]
                with self.autocast():
                    loss = module(piece)
                # DDP averages over processes; the loss is a sum over all of them.
                (loss * (self.process.world / targets)).backward()
            total += loss.detach()
        return (summed(total) / targets).item()

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of the spec: bf16 where matrices are multiplied, float32 elsewhere."""
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self.training["precision"] == "bf16"):
            yield

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean loss in nats a token over the held-out rows, each process taking its share."""
        self.model.eval()
        mine = self.heldout[rows_of_rank(len(self.heldout), self.process.rank, self.process.world)]
        sums = torch.zeros(2, dtype=torch.float64, device=self.process.device)
        size = self.micro_batch_size or self.training["sequences_per_step"]
        for start in range(0, len(mine), size):
            rows = torch.from_numpy(mine[start : start + size]).to(self.process.device)
            with self.autocast():
                sums[0] += self.model.loss(rows, reduction="sum")
            sums[1] += rows.shape[0] * (rows.shape[1] - 1)
        self.model.train()
        total, count = summed(sums).tolist()
        return total / count

    def _save(self, step: int, optimizer: torch.optim.Optimizer, seconds: float) -> None:
        if self.process.leads and step:
            path = checkpoint.save(
                self.folder / "checkpoints",
                step=step,
                spec_hash=self.spec_hash,
                model=self.model,
                optimizer=optimizer,
                rows=self.rows,
                schema=TRAIN,
                seconds=seconds,
            )
            self.say(f"saved {path.name}")
        if self.process.world > 1:
            # Nobody leaves before it is written: torchrun ends all processes soon after the first one goes.
            torch.distributed.barrier()
