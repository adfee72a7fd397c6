"""The training loop (SPEC §5): a pure function of the spec and the token table, interrupted and resumed anywhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deconattn.data.order import TokenTable, batch, rows_of_rank
from deconattn.errors import UserError
from deconattn.model import LanguageModel
from deconattn.training import checkpoint
from deconattn.training.distributed import Process, Sharding, exchange, gather_weights, replicate, shard, whole
from deconattn.training.hooks import Hooks, Stopped
from deconattn.training.schedule import learning_rate, make_optimizer
from deconattn.training.schema import TRAIN


class Diverged(Exception):
    """A loss or gradient that is not finite; the weights are those before the update."""

    def __init__(self, step: int, what: str, scores: str) -> None:
        super().__init__(f"{what} is not finite at step {step}{scores}")
        self.step = step


class TrainingLoss(nn.Module):
    """The summed loss as a module's forward, which is what can be replicated or sharded."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        """Summed cross-entropy of rows (B, L)."""
        return self.model.loss(rows, reduction="sum")


@dataclass
class Trainer:
    """What one training needs.

    `training` is the spec's section; `process`, `sharding`, `micro_batch_size`, `checkpoint_seconds`, `compiled` and
    `hooks` change nothing but how it is computed.
    """

    model: LanguageModel
    training: dict[str, Any]
    seed: int
    spec_hash: str
    table: TokenTable
    heldout: np.ndarray
    folder: Path
    process: Process
    sharding: Sharding = "none"
    micro_batch_size: int | None = None
    checkpoint_seconds: float = 900.0
    compiled: bool = False
    hooks: Hooks = field(default_factory=Hooks)
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Path] = field(default_factory=list)

    def run(self) -> list[dict[str, Any]]:
        """Train to the last step; returns the rows of train.parquet.

        Raises:
            Stopped: asked to stop; a checkpoint is saved.
            Diverged: not finite; the state before the update is saved.
            UserError: what cannot be read or written; the last checkpoint is whole.
        """
        training, hooks = self.training, self.hooks
        steps, sequences = training["steps"], training["sequences_per_step"]
        with hooks.nothing_to_save():
            done = self._prepare(sequences)
        self._started = time.monotonic() - self._spent
        hooks.started(done)
        if done and self._heldout_is_due(done) and self.rows[-1]["heldout_loss"] is None:
            self._add_heldout(done)

        for step in range(done, steps):
            began = time.monotonic()
            self._stop_if_asked(step)
            rate = learning_rate(
                step, peak=training["peak_learning_rate"], warmup_steps=training["warmup_steps"], steps=steps
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rows = torch.from_numpy(batch(self.table, self.seed, step, sequences, self._mine))
            waited = time.monotonic() - began
            # The first update of a process compiles.
            with hooks.nothing_to_save() if step == done else contextlib.nullcontext():
                loss, norm = self._backward(rows.to(self.process.device))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._save(step)
                self.optimizer.zero_grad(set_to_none=True)
                what = "the loss" if not math.isfinite(loss) else "the gradient"
                scores = hooks.largest_scores(self._unsharded(), rows.to(self.process.device))
                raise Diverged(step + 1, what, scores)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

            now = time.monotonic()
            tokens = sequences * self.table.context_length
            row = {
                "step": step + 1,
                "loss": loss,
                "learning_rate": rate,
                "grad_norm": norm,
                "tokens": (step + 1) * tokens,
                "heldout_loss": None,
                "tokens_per_second": tokens / (now - began),
                "seconds": now - self._started,
                "data_seconds": waited,
            }
            self.rows.append(row | hooks.measured(sequences, self.table.context_length, now - began))
            if self._heldout_is_due(step + 1):
                self._add_heldout(step + 1)
            hooks.stepped(step + 1, loss, tokens / (now - began))
            # The last state is kept too: should a scheduler discard the results of a job that ended as its time ran out,
            # the next attempt writes them again at once.
            # Clocks differ between processes: what one finds due, all save.
            due = time.monotonic() - self._saved_at > self.checkpoint_seconds
            if step + 1 == steps or self.process.any("a checkpoint is due" if due else None):
                self._save(step + 1)
        return self.rows

    def _prepare(self, sequences: int) -> int:
        """Place the model, make the optimiser, restore both; returns the updates done."""
        process = self.process
        if process.world > sequences:
            raise UserError(
                f"{process.world} processes share {sequences} sequences a step: at most one process a sequence"
            )
        if self.sharding == "full" and sequences % process.world:
            raise UserError(f"{process.world} processes that share a model do not divide {sequences} sequences a step")
        self._mine = rows_of_rank(sequences, process.rank, process.world)
        self._targets = sequences * (self.table.context_length - 1)
        self.model.to(process.device)
        module: nn.Module = TrainingLoss(self.model)
        if self.sharding == "full" and process.world > 1:
            shard(module, self.model.model.layers, process)
        self.optimizer = make_optimizer(self.model, self.training)
        done, self._spent, self.rows, self.rejected = checkpoint.load_newest(
            self.folder / "checkpoints",
            spec_hash=self.spec_hash,
            model=self.model,
            optimizer=self.optimizer,
            report=self.hooks.said,
        )
        if process.least(done) != -process.least(-done):
            raise UserError(f"{self.folder / 'checkpoints'}: the processes do not see the same checkpoints there")
        if done:
            self.hooks.said(f"resumed after step {done}")
        self.model.train()
        self.hooks.prepared(self.model)
        share = self._mine.stop - self._mine.start
        piece = self.micro_batch_size or self.hooks.micro_batch(self.model, share, self.table.context_length)
        self._piece = process.least(piece)
        if self.compiled:
            self.model.model.compile()
        self._module = replicate(module) if self.sharding == "none" and process.world > 1 else module
        self._saved, self._saved_at = done, time.monotonic()
        self._evaluated = False
        return done

    def _backward(self, rows: Tensor) -> tuple[float, float]:
        """Accumulate the gradient of the global batch's mean loss over micro-batches; returns that loss and its norm."""
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        pieces = rows.split(self._piece)
        for index, piece in enumerate(pieces):
            with exchange(self._module, last=index + 1 == len(pieces)):
                with self.autocast():
                    loss = self._module(piece)
                # Gradients are averaged over processes; the loss is a sum over all of them.
                (loss * (self.process.world / self._targets)).backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.training["gradient_clip"])
        return (self.process.summed(total) / self._targets).item(), whole(norm).item()

    def _unsharded(self) -> LanguageModel:
        """The model whole in this process."""
        if hasattr(self._module, "set_requires_gradient_sync"):
            weights, _ = checkpoint.gather(self.model, self.optimizer, keep=True)
            model = LanguageModel(self.model.config).to(self.process.device)
            checkpoint.restore_model(model, weights)
            return model
        return self.model

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """The precision of the spec: bf16 where matrices are multiplied, float32 elsewhere."""
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self.training["precision"] == "bf16"):
            yield

    # ---- held-out loss ------------------------------------------------------------------------------------------------
    def _heldout_is_due(self, done: int) -> bool:
        every = self.training["heldout_every"]
        return done == self.training["steps"] or bool(every and done % every == 0)

    def _add_heldout(self, done: int) -> None:
        # A process' first evaluation compiles, which cannot be asked to stop: what is done is saved first.
        unsaved = self.compiled and not self._evaluated
        if unsaved:
            self._save(done)
        with self.hooks.nothing_to_save() if unsaved else contextlib.nullcontext():
            self.rows[-1]["heldout_loss"] = self.heldout_loss(done)
        self._evaluated = True

    @torch.no_grad()
    def heldout_loss(self, done: int) -> float:
        """Mean loss in nats a token over the held-out rows after `done` updates, each process taking its share.

        Raises:
            Stopped: asked to stop; the update is saved, and the loss is computed when the run goes on.
        """
        self.model.eval()
        world, device = self.process.world, self.process.device
        mine = self.heldout[rows_of_rank(len(self.heldout), self.process.rank, world)]
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        longest = -(-len(self.heldout) // world)
        for start in range(0, longest, self._piece):
            self._stop_if_asked(done)
            rows = torch.from_numpy(mine[start : start + self._piece]).to(device)
            # A process without a row here computes with the others all the same: sharded weights are gathered by all.
            # The decoder reads weights of its layers outside of their forward when it computes a side stream once.
            gather_weights(self._module)
            with self.autocast():
                loss = self._module(rows if len(rows) else torch.from_numpy(self.heldout[:1]).to(device))
            if len(rows):
                sums += torch.stack([loss.double(), torch.tensor(rows[:, 1:].numel(), device=device)])
        self.model.train()
        total, count = self.process.summed(sums).tolist()
        return total / count

    # ---- stopping and saving ------------------------------------------------------------------------------------------
    def _stop_if_asked(self, done: int) -> None:
        reason = self.hooks.stop_reason()
        if reason:
            self._save(done)
            raise Stopped(f"stopped by {reason} after step {done}")

    def _save(self, step: int) -> None:
        if step == self._saved:
            return
        began = time.monotonic()
        tensors = checkpoint.gather(self.model, self.optimizer, keep=self.process.leads)

        def write() -> None:
            self.hooks.before_write()
            path = checkpoint.write(
                self.folder / "checkpoints",
                tensors,
                step=step,
                spec_hash=self.spec_hash,
                rows=self.rows,
                schema=TRAIN,
                seconds=began - self._started,
                rejected=self.rejected,
                report=self.hooks.said,
            )
            self.hooks.said(f"saved {path.name} in {time.monotonic() - began:.1f} s")

        # Nobody goes on before it is written: torchrun ends all processes soon after the first one leaves.
        self.process.lead(write)
        self._saved, self._saved_at = step, time.monotonic()
        self.hooks.saved(self._saved_at - began)
