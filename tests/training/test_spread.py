"""One training on several processes: replicated, sharded, in micro-batches, and going on with another number of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise
from deconattn.errors import UserError
from deconattn.training import parallel
from deconattn.training.loop import Hooks
from deconattn.training.microbatch import bytes_kept, sequences_that_fit
from deconattn.training.parallel import Loss, Process
from deconattn.training.run import RunFiles, pretrain
from tests.conftest import made_once
from tests.training import CONTEXT, PATIENCE, checkpoints, curve, disturb, free_port, make_run, train

MICRO = ("--micro-batch-size", "1")
ONE = (*MICRO, "--compile")  # compiled for batches of this size once, for all these tests
UNEVEN = ("--micro-batch-size", "3")  # of 4 sequences; that it is compiled once is of test_compiled
SHARDED = ("--sharding", "full")
OFTEN = ("--checkpoint-minutes", "0")


def assert_same_curve(ours: Path, theirs: Path, updates: int = 20) -> None:
    """Losses and gradients of the first 20 updates agree to 1e-6, the rest up to what float32 rounding grows to."""
    for mine, other in zip(curve(ours), curve(theirs), strict=True):
        budget = 1e-6 if mine["step"] <= updates else 1e-4
        assert mine["loss"] == pytest.approx(other["loss"], abs=budget)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5 if mine["step"] <= updates else 1e-3)
        if other["heldout_loss"] is not None:
            assert mine["heldout_loss"] == pytest.approx(other["heldout_loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "processes"),
    [(UNEVEN, 1), (MICRO, 2), ((*SHARDED, *MICRO), 2)],
    ids=["uneven", "two, micro", "sharded, micro"],
)
@pytest.mark.slow
def test_however_it_is_spread_it_is_the_same_training(
    options: tuple[str, ...], processes: int, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    done = train(run, token_table, *options, processes=processes)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    assert_same_curve(run, undisturbed)
    ours, theirs = (json.loads((folder / "record.json").read_text())["parameters"] for folder in (run, undisturbed))
    assert ours == theirs, "whole parameters are counted where each process holds a share"


@pytest.fixture(scope="session")
def sharded(token_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that two processes shared, in micro-batches, until a signal."""

    def make(folder: Path) -> None:
        run = make_run(folder / "undisturbed")
        options = (*SHARDED, *MICRO, *OFTEN)
        code, said = disturb(run, token_table, signal.SIGTERM, lambda: checkpoints(run), *options, processes=2)
        assert code == 75, said

    return made_once(tmp_path_factory, "sharded", make) / "undisturbed"


@pytest.mark.parametrize(
    ("options", "processes"),
    [((), 1), ((), 2), ((*SHARDED, *ONE), 2)],
    ids=["alone", "two", "two, sharded, compiled"],
)
@pytest.mark.slow
def test_a_sharded_training_goes_on_otherwise(
    options: tuple[str, ...], processes: int, sharded: Path, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    """Whole and in shares, eager and compiled; its first updates are those of shares and micro-batches."""
    run = tmp_path / "undisturbed"
    shutil.copytree(sharded, run)
    done = train(run, token_table, *options, processes=processes)
    assert done.returncode == 0 and "resumed after step" in done.stderr, done.stderr
    assert "Warning" not in done.stderr and "recompile_limit" not in done.stderr, done.stderr
    assert_same_curve(run, undisturbed)


@pytest.mark.slow
def test_a_training_of_one_process_goes_on_in_two_that_share_it(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    code, said = disturb(run, token_table, signal.SIGTERM, lambda: list(run.glob("checkpoints/step-*")), *OFTEN)
    assert code == 75, said
    done = train(run, token_table, *SHARDED, processes=2)
    assert done.returncode == 0 and "resumed after step" in done.stderr, done.stderr
    assert_same_curve(run, undisturbed)


WAITS = """
import sys, time, torch
from datetime import timedelta
from deconattn.training.parallel import process_group
with process_group("cpu") as process:
    process.expect(timedelta(seconds=1))
    process.summed(torch.zeros(1))
    if process.rank:
        time.sleep(600)
    process.summed(torch.zeros(1))
"""


@pytest.mark.slow
def test_a_process_that_hangs_is_waited_for_as_long_as_was_expected(tmp_path: Path) -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", WAITS], env={**os.environ, **place, "RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    )
    try:
        said = first.communicate(timeout=PATIENCE)[1]
        assert first.returncode == 1 and "Timed out waiting 1000ms" in said
    finally:
        second.kill()


def test_only_what_may_compile_is_waited_for_longer(
    token_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(Process, "expect", lambda self, limit: said.append(limit))

    class Counts(Hooks):
        def stepped(self, row: dict[str, Any]) -> None:
            said.append(row["step"])

    run = RunFiles(make_run(tmp_path / "run", steps=3, heldout_every=1), token_table)
    pretrain(
        run, Process(0, 1, torch.device("cpu")), Counts(), side_text=None, tokenizer=None, sharding="none", compiled=False,
        checkpoint_minutes=60.0,
    )  # fmt: skip
    assert said == [parallel.PATIENCE, parallel.HANG, 1, 2, 3]


@pytest.mark.slow
def test_a_sharded_training_that_diverges_names_the_layer(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "diverges", peak_learning_rate=1e30)
    done = train(run, token_table, "--sharding", "full", processes=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "not finite at step 2; the largest score before the softmax, in layer 1 of 4" in done.stderr


def loss_of(layers: int = 4) -> Loss:
    sizes = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    model = LanguageModel(
        ModelConfig(**sizes, num_hidden_layers=layers, max_position_embeddings=256, variant="rndembqk")
    )
    initialise(model, 0)
    return Loss(model, "float32")


def test_the_micro_batch_grows_with_memory_and_divides_the_share() -> None:
    loss = loss_of()
    parameters = sum(parameter.numel() for parameter in loss.parameters())
    kept = [bytes_kept(loss, count, 128) for count in (1, 2, 3)]
    each = kept[2] - kept[1]
    # Linear in the batch, but for some padding: what one and two keep tells what more keep.
    assert each == pytest.approx(kept[1] - kept[0], rel=1e-3)

    def fitting(state: float, sequences: int, processes: int = 1) -> int:
        return sequences_that_fit(loss, 12, 128, int((state + kept[0] + (sequences - 0.9) * each) / 0.85), processes)

    assert [fitting(16 * parameters, count) for count in (1, 3, 5, 8, 12, 99)] == [1, 3, 4, 6, 12, 12]
    with pytest.raises(UserError, match="no micro-batch fits: weights and optimiser take 0.0 GB"):
        fitting(16 * parameters, 0)
    # Over four processes weights and moments take a quarter; gradients accumulate whole.
    assert fitting((12 / 4 + 4) * parameters, 6, processes=4) == 6
    with pytest.raises(UserError, match="no micro-batch fits"):
        fitting(16 / 4 * parameters, 1, processes=4)


def test_what_a_forward_keeps_is_what_memory_grows_by() -> None:
    """The count against the process' own memory, for a forward that is held on to."""
    big, length = loss_of(layers=8), 256
    bytes_kept(big, 1, length)  # what a first call allocates once
    process = psutil.Process()
    before = process.memory_info().rss
    held = big(torch.zeros(24, length, dtype=torch.long))
    grown = process.memory_info().rss - before
    assert grown == pytest.approx(bytes_kept(big, 24, length), rel=0.35)
    del held


@pytest.mark.slow
def test_a_micro_batch_from_memory_is_said_and_trains_the_same(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    spec = json.loads((run / "spec.json").read_text())
    small = LanguageModel(ModelConfig.from_dict({**spec["model"], "vocab_size": 320}))
    state = 16 * sum(parameter.numel() for parameter in small.parameters())
    room_for_three = (state + bytes_kept(Loss(small, "float32"), 3, CONTEXT)) / 0.85
    done = train(run, token_table, "--device-memory-gb", str(room_for_three / 1e9))
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if "micro-batches of" in line)
    assert "micro-batches of 2 of 4 sequences" in said  # three do not divide four
    assert_same_curve(run, undisturbed)
