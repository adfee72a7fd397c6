"""Stops in time: in training, in evaluation during training, while compiling; on several processes; and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from deconattn.training.requeue import Requeue
from deconattn.training.stops import MARGIN_SECONDS
from tests.conftest import slow
from tests.training import (
    PATIENCE,
    checkpoints,
    disturb,
    log,
    longer_run,
    make_run,
    resumed,
    spawn,
    state,
    train,
    trainers,
    wait_for,
)  # fmt: skip

ENDLESS = 1_000_000
OFTEN = ("--checkpoint-minutes", "0.005")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """The folder of a run that only a stop ends."""
    return make_run(tmp_path / "endless", steps=ENDLESS, warmup_steps=1, heldout_every=ENDLESS)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error of a process that is to end; one that goes on is killed."""
    try:
        printed = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert "Traceback" not in printed, printed
    return process.returncode, printed


@pytest.mark.parametrize("number", [signal.SIGUSR1, *slow(signal.SIGINT)])
def test_a_signal_saves_and_the_run_goes_on_bit_identically(
    number: signal.Signals, longer: Path, token_table: Path, tmp_path: Path
) -> None:
    run = longer_run(tmp_path / "longer")
    code, printed = disturb(run, token_table, number, lambda: "step 60/" in log(run))
    assert code == 75 and printed.splitlines()[-1].startswith(f"longer: stopped by {number.name} after step ")
    (last,) = checkpoints(run)  # none was due: what is there was saved for the stop
    assert int(last.name[5:]) == int(printed.split()[-1])
    assert not (run / "record.json").exists()
    assert train(run, token_table).returncode == 0
    assert state(run) == state(longer)


def test_a_job_of_a_cluster_asks_for_a_requeue_only_at_its_limit_and_if_it_has_saved_something(
    endless: Path, token_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", os.devnull)  # where there is a Slurm at all: it fails at once
    code, printed = disturb(endless, token_table, signal.SIGUSR1, lambda: checkpoints(endless), *OFTEN)
    assert code == 75 and "requeue" not in printed, "it is no job of a cluster"
    monkeypatch.setenv("DECONATTN_SLURM_JOB", "7")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        saved = log(endless).count("saved step")
        more = lambda saved=saved: log(endless).count("saved step") > saved  # noqa: E731
        code, printed = disturb(endless, token_table, number, more, *OFTEN)
        assert code == 75 and ("job 7 could not be requeued (" in printed) == (number == signal.SIGUSR1), printed
    requeue = Requeue(endless)
    assert requeue.ask("SIGTERM") is None and str(requeue.ask("deadline")).startswith("nothing new was saved")
    (endless / "checkpoints/step-99999999").mkdir()
    assert str(requeue.ask("deadline")).startswith("job 7 could not be requeued")


def test_a_deadline_stops_in_time_and_saves(endless: Path, token_table: Path, tmp_path: Path) -> None:
    """The deadline is as far beyond the trainer's margin as a short training takes here, doubled while none has begun."""
    started = time.monotonic()
    assert train(make_run(tmp_path / "short", steps=4), token_table).returncode == 0
    short = time.monotonic() - started
    for patience in (2 * short, 8 * short, 32 * short):
        deadline = MARGIN_SECONDS + 1.1 * patience
        started = time.monotonic()
        done = train(endless, token_table, "--deadline-minutes", str(deadline / 60))
        took = time.monotonic() - started
        assert done.returncode == 75 and "stopped by deadline" in done.stderr, done.stderr
        if checkpoints(endless) and took < deadline:  # after step 0 there is nothing to save
            break
    assert "stopped by deadline after step" in done.stderr and checkpoints(endless), done.stderr
    assert took < deadline, f"{took:.1f} s of {deadline:.1f} s"


@pytest.mark.slow
def test_evaluation_during_training_is_left_and_made_up_for(token_table: Path, tmp_path: Path) -> None:
    """Held-out losses after each update, a sequence at a time, take most of the time: a signal falls into one."""
    settings, options = {"steps": 8, "heldout_every": 1}, ("--micro-batch-size", "1")
    twin, run = make_run(tmp_path / "twin", **settings), make_run(tmp_path / "run", **settings)
    assert train(twin, token_table, *options).returncode == 0
    in_evaluation = False
    while not in_evaluation:
        before = log(run).count("left")
        code, _ = disturb(
            run, token_table, signal.SIGTERM, lambda before=before: log(run).count("left") > before, *options
        )
        assert code == 75, "no signal fell into an evaluation"
        in_evaluation = pq.read_table(checkpoints(run)[-1] / "train.parquet")["heldout_loss"].to_pylist()[-1] is None
    assert train(run, token_table, *options).returncode == 0
    assert state(run) == state(twin)


@pytest.mark.slow
def test_compiling_is_left_at_once(endless: Path, token_table: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = spawn(
        endless, token_table, "--compile", TORCHINDUCTOR_CACHE_DIR=str(cache), TORCHINDUCTOR_FORCE_DISABLE_CACHES="1"
    )
    wait_for(lambda: any(cache.rglob("*")), process)  # Inductor is at work: it has begun to write
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    code, printed = end_of(process)
    # Before the first update was done, and so while compiling.
    assert code == 75 and "stopped by SIGTERM; nothing was unsaved" in printed
    assert not psutil.wait_procs(children, timeout=PATIENCE)[1]
    assert [path.stat().st_mtime for path in (endless / "lock").iterdir()] == [0], "the run is left"


def imports_torch(process: subprocess.Popen[str]) -> bool:
    """Whether a process is about to import torch, which takes it seconds; or has ended."""
    try:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, PermissionError):
        return True


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_is_imported_is_heard(
    number: signal.Signals, processes: int, endless: Path, token_table: Path
) -> None:
    process = spawn(endless, token_table, processes=processes)
    wait_for(lambda: imports_torch(process), process)
    assert not psutil.Process(process.pid).children()
    process.send_signal(number)
    assert end_of(process) == (75, f"training: stopped by {number.name}; nothing was unsaved\n")
    assert not trainers(endless) and [path.name for path in endless.iterdir()] == ["spec.json"]


def test_a_process_whose_launcher_has_gone_does_not_begin(endless: Path, token_table: Path) -> None:
    code, printed = end_of(spawn(endless, token_table, DECONATTN_LAUNCHER="1"))
    assert (code, printed) == (75, "training: stopped by the end of its launcher; nothing was unsaved\n")


# ---- several processes ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_signal_to_torchrun_reaches_processes_that_have_just_been_started(endless: Path, token_table: Path) -> None:
    process = spawn(endless, token_table, processes=2)
    wait_for(lambda: psutil.Process(process.pid).children(), process)
    process.send_signal(signal.SIGTERM)
    assert end_of(process)[0] == 75
    assert not trainers(endless) and not checkpoints(endless)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(endless: Path, token_table: Path) -> None:
    process = spawn(endless, token_table, *OFTEN, processes=2)
    wait_for(lambda: checkpoints(endless), process)
    trainers(endless)[1].send_signal(signal.SIGUSR1)
    code, printed = end_of(process)
    assert code == 75 and f"stopped by SIGUSR1 after step {int(checkpoints(endless)[-1].name[5:])}" in printed
    assert not trainers(endless)

    # Sent to torchrun, as `scancel` and `kill` do, it is passed on.
    code, printed = disturb(endless, token_table, signal.SIGTERM, lambda: "resumed" in log(endless), processes=2)
    assert code == 75 and "Traceback" not in printed and not trainers(endless)

    # One that has nothing unsaved yet ends at once, in the middle of an exchange with the other.
    process = spawn(endless, token_table, processes=2)
    wait_for(lambda: len(resumed(endless)) == 2, process)
    trainers(endless)[1].send_signal(signal.SIGUSR1)
    code, printed = end_of(process)
    assert code == 75 and "stopped by SIG" in printed and not trainers(endless)


@pytest.mark.parametrize(("victim", "status"), [("torchrun", -9), ("process 1", 1)])
@pytest.mark.slow
def test_a_killed_process_leaves_no_orphan(victim: str, status: int, endless: Path, token_table: Path) -> None:
    process = spawn(endless, token_table, *OFTEN, processes=2)
    wait_for(lambda: len(checkpoints(endless)) == 2, process)
    process.kill() if victim == "torchrun" else trainers(endless)[1].kill()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    wait_for(lambda: not trainers(endless))
    if victim == "process 1":  # the processes of a killed launcher leave by themselves
        assert all(path.stat().st_mtime for path in endless.glob("lock/*.json")), "its end counts as a kill"
    # The run is free, and whole.
    code, printed = disturb(endless, token_table, signal.SIGTERM, lambda: "resumed" in log(endless))
    assert code == 75 and "damaged" not in printed


@pytest.mark.slow
def test_the_launcher_ends_as_its_processes_do(undisturbed: Path, token_table: Path, tmp_path: Path) -> None:
    done = spawn(undisturbed, token_table, processes=2)
    assert (done.communicate(timeout=PATIENCE)[1], done.returncode) == ("", 0)
    bad = spawn(make_run(tmp_path / "bad", sequences_per_step=1), token_table, processes=2)
    said = bad.communicate(timeout=PATIENCE)[1]
    assert bad.returncode == 2
    assert said == "2 processes share 1 sequences a step: at most one process a sequence\n"
