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

from tests.conftest import ROOT
from tests.training import command, disturb, longer_run, make_run, state, train, wait_for

pytestmark = pytest.mark.xdist_group("training")
ENDLESS = 1_000_000


def saved(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*"))


def trainers(run: Path) -> list[psutil.Process]:
    """Processes that train this run, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(run) in (process.info["cmdline"] or []) and "deconattn.training.launch" not in process.info["cmdline"]:
            found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_asked_to_stop_it_saves_and_goes_on_bit_identically(
    number: signal.Signals, longer: Path, token_table: Path, tmp_path: Path
) -> None:
    run = longer_run(tmp_path / "longer")
    code, said = disturb(run, token_table, number, lambda: "step 120/" in log(run))
    assert code == 75 and said.splitlines()[-1].startswith(f"longer: stopped by {number.name} after step ")
    (last,) = saved(run)  # none was due: what is there was saved for the stop
    assert last.name.removeprefix("step-").lstrip("0") == said.split()[-1]
    assert not (run / "done.json").exists()
    assert train(run, token_table).returncode == 0
    assert state(run) == state(longer)


def log(run: Path) -> str:
    path = run / "log" / "pretrain.log"
    return path.read_text() if path.exists() else ""


def test_a_deadline_stops_in_time_and_saves(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "deadline", steps=ENDLESS, warmup_steps=1, heldout_every=1000)
    started = time.monotonic()
    done = train(run, token_table, "--deadline-minutes", "0.2")
    assert done.returncode == 75 and "stopped by deadline after step" in done.stderr
    assert time.monotonic() - started < 12 and saved(run)


def test_evaluation_during_training_is_left_and_made_up_for(token_table: Path, tmp_path: Path) -> None:
    """Held-out losses after each update, a sequence at a time, take most of the time: a signal falls into one."""
    settings, options = {"steps": 30, "heldout_every": 1}, ("--micro-batch-size", "1")
    twin, run = make_run(tmp_path / "twin", **settings), make_run(tmp_path / "run", **settings)
    assert train(twin, token_table, *options).returncode == 0
    in_evaluation = False
    while not in_evaluation:
        code, _ = disturb(run, token_table, signal.SIGTERM, lambda: log(run).count("left") > 1, *options)
        assert code == 75, "no signal fell into an evaluation"
        in_evaluation = pq.read_table(saved(run)[-1] / "train.parquet")["heldout_loss"].to_pylist()[-1] is None
    assert train(run, token_table, *options).returncode == 0
    assert state(run) == state(twin)


def test_compiling_is_left_at_once(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "compile", steps=ENDLESS)
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    with subprocess.Popen(
        command(run, token_table, "--compile"), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        # Inductor is at work: it has begun to write.
        wait_for(lambda: any((tmp_path / "cache").rglob("*")), process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "stopped by SIGTERM; nothing was unsaved" in said
    assert time.monotonic() - asked < 5
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert [path.read_text().endswith("left".ljust(20)) for path in (run / "lock").iterdir()] == [True]


def imports_torch(process: subprocess.Popen[str]) -> bool:
    """Whether a process is about to import torch, which takes it seconds; or has ended."""
    try:
        return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, PermissionError):
        return True


def last_words(process: subprocess.Popen[str]) -> str:
    """What a process that was told to stop says until it ends; one that goes on is killed."""
    try:
        return process.communicate(timeout=30)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_is_imported_is_heard(
    number: signal.Signals, processes: int, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "early", steps=ENDLESS)
    with subprocess.Popen(
        command(run, token_table, processes=processes), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: imports_torch(process), process)
        assert not psutil.Process(process.pid).children()
        process.send_signal(number)
        said = last_words(process)
    assert (process.returncode, said) == (75, f"training: stopped by {number.name}; nothing was unsaved\n")
    assert not trainers(run) and [path.name for path in run.iterdir()] == ["spec.json"]


def test_a_signal_to_torchrun_reaches_processes_that_have_just_been_started(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "early", steps=ENDLESS)
    with subprocess.Popen(
        command(run, token_table, processes=2), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: psutil.Process(process.pid).children(), process)
        process.send_signal(signal.SIGTERM)
        said = last_words(process)
    assert process.returncode == 75 and "Traceback" not in said, said
    assert not trainers(run) and not saved(run)


def test_a_process_whose_launcher_has_gone_does_not_begin(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "early", steps=ENDLESS)
    done = subprocess.run(
        command(run, token_table), cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "DECONATTN_LAUNCHER": "1"},
    )  # fmt: skip
    assert done.returncode == 75
    assert done.stderr == "training: stopped by the end of its launcher; nothing was unsaved\n"


def test_a_wish_of_one_process_stops_all(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "two", steps=ENDLESS, heldout_every=ENDLESS)
    with subprocess.Popen(
        command(run, token_table, "--checkpoint-minutes", "0.005", processes=2),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: saved(run), process)
        second = max(trainers(run), key=lambda one: int(one.environ()["RANK"]))
        second.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "Traceback" not in said
    assert f"two: stopped by a wish of another process after step {int(saved(run)[-1].name[5:])}" in said
    assert not trainers(run)

    # Sent to torchrun, as `scancel` and `kill` do, it is passed on.
    code, said = disturb(run, token_table, signal.SIGTERM, lambda: "resumed" in log(run), processes=2)
    assert code == 75 and "Traceback" not in said and not trainers(run)


@pytest.mark.parametrize("victim", ["torchrun", "process 1"])
def test_a_killed_process_leaves_no_orphan(victim: str, token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "two", steps=ENDLESS, heldout_every=ENDLESS)
    with subprocess.Popen(
        command(run, token_table, "--checkpoint-minutes", "0.005", processes=2), cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: len(saved(run)) == 2, process)
        if victim == "torchrun":
            process.kill()
        else:
            max(trainers(run), key=lambda one: int(one.environ()["RANK"])).kill()
        process.wait(timeout=60)
    assert process.returncode == (-9 if victim == "torchrun" else 1)
    wait_for(lambda: not trainers(run), seconds=30)
    # The run is free, and whole.
    code, said = disturb(run, token_table, signal.SIGTERM, lambda: "resumed" in log(run))
    assert code == 75 and "damaged" not in said


def test_bad_input_to_several_processes_is_one_line_and_its_exit_code(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "bad", sequences_per_step=1)
    done = train(run, token_table, processes=2)
    assert done.returncode == 2
    assert done.stderr.strip() == "2 processes share 1 sequences a step: at most one process a sequence"


def test_the_launcher_ends_well_when_all_end_well(undisturbed: Path, token_table: Path) -> None:
    done = train(undisturbed, token_table, processes=2)
    assert done.returncode == 0 and done.stderr == "", done.stderr
