"""Trainings on a GPU: replicated, sharded, and resumed to the bit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from deconattn.experiment.code import code_of
from deconattn.training.loop import Hooks, Stopped
from deconattn.training.parallel import Loss, Process, Sharding, parallelise, whole
from deconattn.training.run import RunFiles, pretrain
from tests.mixers.cases import assert_near, build, config_of, joined, tokens
from tests.training import curve, make_run, state, train

each_sharding = pytest.mark.parametrize("sharding", ["none", "full"])


@pytest.fixture
def alone(device: torch.device) -> Iterator[Process]:
    """A group of one process."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
    yield Process(0, 1, device)
    dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@each_sharding
def test_a_step_of_one_process(sharding: Sharding, compiled: bool, alone: Process) -> None:
    """DDP and FSDP in a world of one: the gradients of the plain model."""
    config, ids = config_of("rndembqk", "even"), tokens(2, 65).to(alone.device)
    gradients = []
    for spread in (False, True):
        torch.compiler.reset()
        loss = Loss(build(config, dtype=torch.float32)[0].to(alone.device), "float32")
        if spread and compiled:
            loss.compile_parts(len(ids))
        (parallelise(loss, alone, sharding) if spread else loss)(ids).backward()
        gradients.append(joined(whole(parameter.grad) for parameter in loss.parameters()))
    assert_near(gradients[1], gradients[0], 2e-6)


@each_sharding
def test_two_processes_train_as_one(
    sharding: Sharding, device: torch.device, token_table: Path, tmp_path: Path
) -> None:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU; two processes need two")
    options = ("--device", device.type)
    one, two = (make_run(tmp_path / name, steps=5, warmup_steps=1) for name in ("one", "two"))
    assert train(one, token_table, *options).returncode == 0
    done = train(two, token_table, *options, "--sharding", sharding, processes=2)
    assert done.returncode == 0, done.stderr
    for mine, other in zip(curve(two), curve(one), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)


class StopsAt(Hooks):
    """A signal after so many updates."""

    def __init__(self, steps: int | None) -> None:
        self.left = steps

    def stepped(self, row: dict[str, Any]) -> None:
        self.left = self.left and self.left - 1

    def stop_reason(self) -> str | None:
        return "a test" if self.left == 0 else None


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("variant", ["standard", "approximate", "rndembqk", "nonapproximate"])
def test_a_resumed_training_is_the_same_to_the_bit(
    variant: str,
    compiled: bool,
    device: torch.device,
    token_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        found = []
        for name, stops in (("whole", [None]), ("resumed", [4, None])):
            run = make_run(tmp_path / name, steps=8, warmup_steps=1, heldout_every=4)
            spec = json.loads((run / "spec.json").read_text())
            spec["model"] |= {"variant": variant, "num_attention_heads": 2}
            (run / "spec.json").write_text(json.dumps(spec | {"code": code_of({"stage": "pretrain", **spec})}))
            for stop in stops:
                torch.compiler.reset()
                try:
                    pretrain(
                        RunFiles(run, token_table), Process(0, 1, device), StopsAt(stop), side_text=None, tokenizer=None,
                        sharding="none", compiled=compiled, checkpoint_minutes=60.0,
                    )  # fmt: skip
                    assert stop is None
                except Stopped:
                    assert stop
            found.append(state(run))
    finally:
        torch.use_deterministic_algorithms(False)
    assert found[0] == found[1]
