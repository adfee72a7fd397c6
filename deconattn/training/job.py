"""The pretrain stage as a job: a training with a lock, a deadline, progress and measurements around it.

What stands here and in the modules that only this one imports can change no result, and so is no part of a run's code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from deconattn.model import LanguageModel
from deconattn.training import divergence
from deconattn.training.distributed import Process, Sharding, process_group
from deconattn.training.hooks import Hooks, Stopped
from deconattn.training.lock import RunLock
from deconattn.training.machine import end_with_parent
from deconattn.training.microbatch import sequences_that_fit
from deconattn.training.run import RunFiles, pretrain
from deconattn.training.stops import StopWatch
from deconattn.training.throughput import Meter, peak_flops

WRITE_BYTES_PER_SECOND = 200e6  # until a checkpoint has been timed: a busy network file system


class Reporter(Protocol):
    """Who is told how far a training is."""

    def start(self, done: int) -> None: ...
    def step(self, done: int, loss: float, tokens_per_second: float) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


class JobHooks(Hooks):
    """Ties one process of a training to its stop watch, its run's lock and, in process 0, those who are told."""

    def __init__(
        self, process: Process, stops: StopWatch, lock: RunLock | None, progress: Reporter | None, spec: dict[str, Any],
        device_memory_gb: float | None, device_tflops: float | None, sharding: Sharding,
    ) -> None:  # fmt: skip
        self.process, self.stops, self.lock, self.progress = process, stops, lock, progress
        self.bf16 = spec["training"]["precision"] == "bf16"
        self.peak = peak_flops(process.device, spec["training"]["precision"], device_tflops)
        self.device_memory = None if device_memory_gb is None else int(device_memory_gb * 1e9)
        self.shares = process.world if sharding == "full" else 1
        self.meter: Meter | None = None

    def prepared(self, model: LanguageModel) -> None:
        self.meter = Meter(model.config, self.process.device, self.process.world, self.peak)
        self.stops.save_seconds = 12 * sum(map(torch.numel, model.parameters())) / WRITE_BYTES_PER_SECOND

    def started(self, done: int) -> None:
        if self.progress:
            self.progress.start(done)

    def stepped(self, done: int, loss: float, tokens_per_second: float) -> None:
        if self.progress:
            self.progress.step(done, loss, tokens_per_second)

    def said(self, text: str) -> None:
        if self.progress:
            self.progress.say(text)

    def stop_reason(self) -> str | None:
        return self.process.any(self.stops.wanted())

    def nothing_to_save(self) -> AbstractContextManager[None]:
        return self.stops.nothing_to_save()

    def before_write(self) -> None:
        if self.lock:
            self.lock.check()

    def saved(self, seconds: float) -> None:
        self.stops.save_seconds = max(self.stops.save_seconds, seconds)

    def measured(self, sequences: int, length: int, seconds: float) -> dict[str, Any]:
        assert self.meter is not None
        return self.meter(sequences, length, seconds)

    def micro_batch(self, model: LanguageModel, share: int, length: int) -> int:
        memory = self.device_memory
        if memory is None and self.process.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.process.device).total_memory
        if memory is None:
            return share
        found = sequences_that_fit(model, share, length, memory, self.shares, self.bf16)
        self.said(f"micro-batches of {found} of {share} sequences, for {memory / 1e9:.0f} GB")
        return found

    def largest_scores(self, model: LanguageModel, rows: Tensor) -> str:
        return divergence.largest_scores(model, rows)


def run_job(
    run_folder: Path,
    tokens: Path,
    *,
    side_text: Path | None = None,
    tokenizer: Path | None = None,
    micro_batch_size: int | None = None,
    device_memory_gb: float | None = None,
    device_tflops: float | None = None,
    sharding: Sharding = "none",
    threads: int = 1,
    device: str = "auto",
    compiled: bool = False,
    checkpoint_minutes: float = 15.0,
    deadline_minutes: float | None = None,
    take_over: bool = False,
    make_progress: Callable[[str, int, Path], Reporter],
) -> None:
    """Train the run of `run_folder/spec.json` on the token table `tokens`; a finished run returns at once.

    A run that another process is training is refused, or, with `take_over`, asked for.

    Raises:
        Stopped: asked to stop before the end; the same call goes on from the checkpoint.
        UserError: input that does not fit, a run that is taken, a loss that is not finite with `on_divergence: stop`.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    stops = StopWatch(deadline_minutes)
    run = RunFiles(run_folder, tokens)
    stops.name = run.spec["run"]
    torch.set_num_threads(threads)
    with ExitStack() as group:
        with stops.nothing_to_save():  # the other processes may never come
            process = group.enter_context(process_group(device))
        if process.any("finished" if run.is_finished() else None):
            stops.close()
            return
        lock = RunLock(run_folder / "lock") if process.leads else None
        with stops.nothing_to_save():
            process.lead(partial(_own, lock, take_over, stops))
        progress = None
        try:
            if process.any("finished" if run.is_finished() else None):
                return  # by the one that was asked to leave
            if process.leads:
                log = run_folder / "log" / "pretrain.log"
                progress = make_progress(run.spec["run"], run.spec["training"]["steps"], log)
            hooks = JobHooks(
                process, stops, lock, progress, run.spec, device_memory_gb, device_tflops, sharding
            )  # fmt: skip
            pretrain(
                run, process, hooks, side_text=side_text, tokenizer=tokenizer, micro_batch_size=micro_batch_size,
                sharding=sharding, compiled=compiled, checkpoint_minutes=checkpoint_minutes,
            )  # fmt: skip
        except Stopped as stopped:
            if progress:
                progress.say(str(stopped))
            raise
        finally:
            if progress:
                progress.close()
            stops.close()
            if lock:
                lock.release()


def _own(lock: RunLock | None, take_over: bool, stops: StopWatch) -> None:
    assert lock is not None  # of the process that leads
    lock.acquire(take_over)
    stops.tick, stops.tick_seconds, stops.leave = lock.beat, lock.beat_seconds, lock.release


__all__ = ["Stopped", "run_job"]
