"""The pretrain stage as a job: a training with a lock, a deadline, progress and measurements around it.

Nothing here, or in the modules that only this one imports, can change a result; so it is no part of a run's code.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deconattn import bf16
from deconattn.costs import training_flops
from deconattn.decoder import LanguageModel
from deconattn.peaks import peak_of
from deconattn.training import divergence
from deconattn.training.lock import RunLock
from deconattn.training.loop import Hooks, Stopped
from deconattn.training.microbatch import sequences_that_fit
from deconattn.training.parallel import Loss, Process, process_group
from deconattn.training.progress import Progress
from deconattn.training.run import RunFiles, pretrain
from deconattn.training.stops import StopWatch, end_with_parent

WRITE_BYTES_PER_SECOND = 200e6  # until a checkpoint has been timed: a busy network file system


class JobHooks(Hooks):
    """Ties one process of a training to its stop watch and, in process 0, to the run's lock, progress and record."""

    def __init__(
        self, run: RunFiles, process: Process, stops: StopWatch, lock: RunLock, progress: Progress | None, options: Namespace,
        finish: Callable[[dict[str, Any]], None],
    ) -> None:  # fmt: skip
        self.run, self.process, self.stops, self.lock, self.progress = run, process, stops, lock, progress
        self.options, self.finish = options, finish
        self.stopped_by: str | None = None

    def prepared(self, loss: Loss, share: int, length: int) -> int:
        """The micro-batch that is asked for, or else that fits into the device's memory."""
        self.flops = cache(partial(training_flops, loss.model.config))
        self.stops.save_seconds = 12 * sum(map(torch.numel, loss.parameters())) / WRITE_BYTES_PER_SECOND
        if self.options.micro_batch_size:
            return min(share, int(self.options.micro_batch_size))
        if self.options.device_memory_gb:
            memory = int(self.options.device_memory_gb * 1e9)
        elif self.process.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.process.device).total_memory
        else:
            return share
        found = sequences_that_fit(
            loss, share, length, memory, self.process.world if self.options.sharding == "full" else 1
        )
        self.report(f"micro-batches of {found} of {share} sequences, for {memory / 1e9:.0f} GB")
        return found

    def stepped(self, row: dict[str, Any]) -> None:
        if self.progress:
            self.progress.step(row)

    def report(self, text: str) -> None:
        if self.progress:
            self.progress.say(text)

    def stop_reason(self) -> str | None:
        self.stopped_by = self.process.any(self.stops.reason())
        return self.stopped_by

    def nothing_to_save(self) -> AbstractContextManager[None]:
        return self.stops.nothing_to_save()

    def before_write(self) -> None:
        self.lock.check()

    def saved(self, seconds: float) -> None:
        self.stops.save_seconds = max(self.stops.save_seconds, seconds)

    def measured(self, sequences: int, length: int, seconds: float) -> dict[str, Any]:
        """The columns `mfu` and `peak_memory_bytes` (allocated on a GPU, else resident), in process 0.

        MFU (Chowdhery et al., 2022) counts the FLOPs that the variant needs, once each, forward and backward: less than are
        done where activations are computed again, and other than standard attention's for the other variants. What the device
        could do at most is stated, or its maker's figure; where neither is known, MFU is None.
        """
        if not self.process.leads:
            return {}
        device, peak = self.process.device, 1e12 * (self.options.device_tflops or 0.0)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
            if not peak and self.run.spec["training"]["precision"] == "bf16":
                peak = (peak_of(torch.cuda.get_device_name(device)) or (0.0,))[0]
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        mfu = self.flops(sequences, length) / seconds / (peak * self.process.world) if peak else None
        return {"mfu": mfu, "peak_memory_bytes": memory}

    def largest_scores(self, model: LanguageModel, rows: Tensor) -> str:
        return divergence.largest_scores(model, rows)

    def finished(self, facts: dict[str, Any]) -> None:
        self.finish(facts)
        if not self.options.keep_checkpoints and (problem := delete_checkpoints(self.run.folder)):
            self.report(problem)


def delete_checkpoints(run_folder: Path) -> str | None:
    """Delete the checkpoints of a finished run if its weights, read again, are those of the last one; else say so."""
    found = sorted(run_folder.glob("checkpoints/step-*"))
    for last in found[-1:]:
        paths = [folder / "model.safetensors" for folder in (last, run_folder / "model")]
        try:
            with ExitStack() as stack:
                saved, written = (stack.enter_context(safe_open(path, "pt")) for path in paths)
                same = all(torch.equal(saved.get_tensor(key), written.get_tensor(key)) for key in saved.keys())
        except (OSError, SafetensorError):
            same = False
        if not same:
            return f"{paths[1]}: not the weights of {last.name}; the checkpoints are kept"
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return None


def run_job(
    run_folder: Path,
    tokens: Path,
    side_text: Path | None,
    tokenizer: Path | None,
    options: Namespace,
    finish: Callable[[dict[str, Any]], None],
) -> None:
    """Train the run of `run_folder/spec.json` on the token table `tokens`; a finished run returns at once.

    `options` are those of `deconattn pretrain`; `finish` writes the run's record. A run that another process trains is
    refused or, with `take_over`, that process is asked to leave.

    Raises:
        Stopped: the run was stopped before its end; the same call goes on from the checkpoint.
        UserError: input that does not fit, a run that is taken, a loss that is not finite with `on_divergence: stop`.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    stops = StopWatch(options.deadline_minutes, run_folder)
    run = RunFiles(run_folder, tokens)
    name, training = run.spec["run"], run.spec["training"]
    torch.set_num_threads(options.threads)
    lock = RunLock(run_folder / "lock")  # of process 0

    def own() -> bool:
        lock.acquire(options.take_over)
        stops.lock = lock
        return run.is_finished()  # by the process that was asked to leave

    with ExitStack() as at_end:
        with stops.nothing_to_save():  # the other processes may never come
            process = at_end.enter_context(process_group(options.device))
        at_end.callback(lock.release)
        at_end.callback(stops.close)
        if process.lead(run.is_finished):
            return
        with stops.nothing_to_save():
            finished = process.lead(own)
        if finished:
            return
        progress = None
        if process.leads:
            progress = Progress(name, training["steps"], run_folder)
            at_end.callback(progress.close)
            if training["precision"] == "bf16" and bf16.is_slow(process.device.type):
                progress.say(bf16.SLOW)
        hooks = JobHooks(run, process, stops, lock, progress, options, finish)
        try:
            pretrain(
                run, process, hooks, side_text=side_text, tokenizer=tokenizer, sharding=options.sharding,
                compiled=options.compile, checkpoint_minutes=options.checkpoint_minutes,
            )  # fmt: skip
        except Stopped as stopped:
            hooks.report(str(stopped))
            # The others wait: the launcher ends them all as soon as one has ended.
            if said := process.lead(lambda: stops.requeue.ask(hooks.stopped_by or "")):
                hooks.report(said)
            raise
        except RuntimeError as error:
            # A process that has ended breaks the exchange of the others. The launcher ends as that one did.
            if process.world == 1 or not (reason := stops.soon()):
                raise
            hooks.report(f"stopped by {reason}: {str(error).splitlines()[0]}")
            sys.exit(1)
