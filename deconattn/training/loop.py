"""The training loop (method.md, Training): a pure function of spec and tokens, interrupted and resumed anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deconattn.data.order import batch, rows_of_rank
from deconattn.data.table import TokenTable
from deconattn.decoder import LanguageModel
from deconattn.errors import UserError
from deconattn.training.checkpoint import Checkpoints, restore_weights, weights_of
from deconattn.training.optimizer import learning_rate, make_optimizer
from deconattn.training.parallel import (
    HANG,
    PATIENCE,
    Loss,
    Process,
    Sharding,
    exchange,
    is_sharded,
    parallelise,
    unshard,
    whole,
)


class Stopped(Exception):
    """The run was stopped before its end and has saved what it had."""


class Diverged(Exception):
    """A loss or gradient that is not finite; the weights are those before the update."""


class Hooks:
    """What surrounds a training and cannot change its result; as it stands here, nothing.

    A job (`deconattn.training.job`) overrides these methods with a lock, a deadline, progress and measurements. The loop
    does not import them, so that they are no part of a run's code, and editing them leaves every run its name.
    """

    def prepared(self, loss: Loss, share: int, length: int) -> int:
        """Called once the model is on its device. Returns how many of `share` sequences of `length` to hold at once."""
        return share

    def stepped(self, row: dict[str, Any]) -> None:
        """An update is made; `row` is that of train.parquet."""

    def report(self, text: str) -> None:
        """Print and log a line."""

    def stop_reason(self) -> str | None:
        """Why to save and stop now, or None. All processes call it at the same places and get the same answer."""
        return None

    def nothing_to_save(self) -> AbstractContextManager[None]:
        """Around what takes long, such as compiling, while everything is saved: the process may end at any moment."""
        return nullcontext()

    def before_write(self) -> None:
        """Process 0 is about to write into the run's folder; raises if another process owns it by now."""

    def saved(self, seconds: float) -> None:
        """A checkpoint is whole, `seconds` after it was begun; called in the thread that has written it."""

    def measured(self, sequences: int, length: int, seconds: float) -> dict[str, Any]:
        """More columns of train.parquet for an update of `sequences` × `length` tokens."""
        return {}

    def largest_scores(self, model: LanguageModel, rows: Tensor) -> str:
        """Where the scores before the softmax are largest in a model that diverged: the end of a sentence."""
        return ""

    def finished(self, facts: dict[str, Any]) -> None:
        """Process 0 has written the results; `facts` belong into the run's record."""


@dataclass
class Trainer:
    """What one training needs; from `process` on, nothing changes what is computed."""

    model: LanguageModel
    spec: dict[str, Any]
    key: str
    table: TokenTable
    heldout: np.ndarray
    folder: Path
    process: Process
    hooks: Hooks
    sharding: Sharding
    compiled: bool
    checkpoint_seconds: float

    def run(self) -> list[dict[str, Any]]:
        """Train to the last step; returns the rows of train.parquet.

        Raises:
            Stopped: the run was stopped; a checkpoint is saved.
            Diverged: not finite; the state before the update is saved.
            UserError: what cannot be read or written; the last checkpoint is whole.
        """
        training, hooks = self.spec["training"], self.hooks
        steps, sequences, length = training["steps"], training["sequences_per_step"], self.table.context_length
        with hooks.nothing_to_save():
            done = self._prepare()
        if done and self._heldout_is_due(done) and self.rows[-1]["heldout_loss"] is None:
            self._add_heldout(done)

        for step in range(done, steps):
            began = time.monotonic()
            self._stop_if_asked(step)
            rate = learning_rate(step, training["peak_learning_rate"], training["warmup_steps"], steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            mine = batch(self.table, self.spec["seed"], step, sequences, self._mine)
            waited = time.monotonic() - began
            rows = self._placed(mine)
            with self._compiling() if step == done else nullcontext():
                loss, norm = self._backward(rows)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._save(step)
                self.checkpoints.finish()
                self.optimizer.zero_grad(set_to_none=True)
                what = "the gradient" if math.isfinite(loss) else "the loss"
                scores = hooks.largest_scores(self._unsharded(), rows)
                raise Diverged(f"{what} is not finite at step {step + 1}{scores}")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

            now = time.monotonic()
            row = {
                "step": step + 1,
                "loss": loss,
                "learning_rate": rate,
                "grad_norm": norm,
                "tokens": (step + 1) * sequences * length,
                "heldout_loss": None,
                "tokens_per_second": sequences * length / (now - began),
                "seconds": now - self._started,
                "data_seconds": waited,
            }
            self.rows.append(row | hooks.measured(sequences, length, now - began))
            if self._heldout_is_due(step + 1):
                self._add_heldout(step + 1)
            hooks.stepped(self.rows[-1])
            # The last state is kept too: should a scheduler discard the results of a job that ended as its time ran out,
            # the next attempt writes them again at once. Clocks differ between processes: if one finds a checkpoint due,
            # all save.
            due = time.monotonic() - self._saved_at > self.checkpoint_seconds or self.checkpoints.failed
            if step + 1 == steps or self.process.any("a checkpoint is due" if due else None):
                self._save(step + 1)
        self.checkpoints.finish()
        return self.rows

    def _prepare(self) -> int:
        """Place the model, make the optimiser, restore both; returns the updates done."""
        process, sequences = self.process, self.spec["training"]["sequences_per_step"]
        if process.world > sequences:
            raise UserError(
                f"{process.world} processes share {sequences} sequences a step: at most one process a sequence"
            )
        if self.sharding == "full" and sequences % process.world:
            raise UserError(f"{process.world} processes that share a model do not divide {sequences} sequences a step")
        self._mine = rows_of_rank(sequences, process.rank, process.world)
        self._scored = len(range(self.table.context_length - 1)[self.table.scored])  # targets of a sequence
        self._targets = sequences * self._scored
        loss = Loss(self.model.to(process.device), self.spec["training"]["precision"], self.table.scored)
        # Of process 0, whose share is the largest; before sharding, as memory is measured by running a forward.
        share = self._mine.stop - self._mine.start
        self._micro_batch = process.lead(lambda: self.hooks.prepared(loss, share, self.table.context_length))
        if self.compiled:
            loss.compile_parts(self._micro_batch)
        self._module = parallelise(loss, process, self.sharding) if process.world > 1 else loss
        self.optimizer = make_optimizer(self.model, self.spec["training"])
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.key, process, self.hooks.report)
        done, spent, self.rows = self.checkpoints.load(self.model, self.optimizer)
        if done:
            self.hooks.report(f"resumed after step {done}")
        self.model.train()
        self._saved, self._saved_at = done, time.monotonic()
        self._started = self._saved_at - spent
        self._evaluated = False
        return done

    def _backward(self, rows: Tensor) -> tuple[float, float]:
        """Accumulate the gradient of the global batch's mean loss over micro-batches; returns that loss and its norm."""
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        pieces = rows.split(self._micro_batch)
        for index, piece in enumerate(pieces):
            with exchange(self._module, last=index + 1 == len(pieces)):
                loss = self._module(piece)
                # Gradients are averaged over processes; the loss is a sum over all of them.
                (loss * (self.process.world / self._targets)).backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.spec["training"]["gradient_clip"])
        # The one place in an update where the processor waits for the device.
        loss, norm = torch.stack([self.process.summed(total) / self._targets, whole(norm).double()]).tolist()
        return loss, norm

    def _placed(self, rows: np.ndarray) -> Tensor:
        """Rows on the device, on their way there while the processor goes on."""
        tensor = torch.from_numpy(rows)
        return (
            tensor.pin_memory().to(self.process.device, non_blocking=True)
            if self.process.device.type == "cuda"
            else tensor
        )

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Around what may compile, in each process at its own speed, while everything is saved."""
        self.process.expect(PATIENCE)
        with self.hooks.nothing_to_save():
            yield
        self.process.expect(HANG)

    def _unsharded(self) -> LanguageModel:
        """The model whole in this process."""
        if not is_sharded(self._module):
            return self.model
        model = LanguageModel(self.model.config).to(self.process.device)
        restore_weights(model, weights_of(self.model))
        return model

    # ---- held-out loss ------------------------------------------------------------------------------------------------
    def _heldout_is_due(self, done: int) -> bool:
        every = self.spec["training"]["heldout_every"]
        return done == self.spec["training"]["steps"] or bool(every and done % every == 0)

    def _add_heldout(self, done: int) -> None:
        # A process's first evaluation compiles, and cannot be stopped while it does: what is done is saved first.
        compiles = self.compiled and not self._evaluated
        if compiles:
            self._save(done)
            self.checkpoints.finish()
        with self._compiling() if compiles else nullcontext():
            self.rows[-1]["heldout_loss"] = self.heldout_loss(done)
        self._evaluated = True

    @torch.no_grad()
    def heldout_loss(self, done: int) -> float:
        """Mean loss in nats a token over the held-out rows after `done` updates, each process taking its share.

        Raises:
            Stopped: the run was stopped; the update is saved, and the loss is computed when the run goes on.
        """
        self.model.eval()
        world, device = self.process.world, self.process.device
        mine = self.heldout[rows_of_rank(len(self.heldout), self.process.rank, world)]
        total = torch.zeros((), dtype=torch.float64, device=device)
        longest = -(-len(self.heldout) // world)
        for start in range(0, longest, self._micro_batch):
            self._stop_if_asked(done)
            rows = mine[start : start + self._micro_batch]
            # At inference the decoder runs a side stream outside of its layers' forward, where sharded weights are whole.
            unshard(self._module)
            # A process without rows here computes with the others all the same, as they gather sharded weights together.
            loss = self._module(self._placed(rows if len(rows) else self.heldout[:1]))
            if len(rows):
                total += loss
        self.model.train()
        return self.process.summed(total).item() / (len(self.heldout) * self._scored)

    # ---- stopping and saving ------------------------------------------------------------------------------------------
    def _stop_if_asked(self, done: int) -> None:
        reason = self.hooks.stop_reason()
        if reason:
            self._save(done)
            self.checkpoints.finish()
            raise Stopped(f"stopped by {reason} after step {done}")

    def _save(self, step: int) -> None:
        if step == self._saved:
            return
        seconds = time.monotonic() - self._started
        before, after = self.hooks.before_write, self.hooks.saved
        self.checkpoints.save(self.model, self.optimizer, step, seconds, self.rows, before, after)
        self._saved, self._saved_at = step, time.monotonic()
