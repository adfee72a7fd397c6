"""One writer a run: who gets it, who is refused, and what happens to owners that crash, sleep or live elsewhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.training.lock import RunLock, this_process
from tests.conftest import ROOT
from tests.training import command, longer_run, state, train, wait_for

OWNER = """
import sys, time
from pathlib import Path
from deconattn.training.lock import RunLock
lock = RunLock(Path(sys.argv[1]), stale_seconds=2)
lock.acquire()
print("owned", flush=True)
while True:
    time.sleep(lock.beat_seconds)
    if lock.beat():
        lock.release()
        break
"""


pytestmark = pytest.mark.xdist_group("training")


@pytest.fixture
def owner(tmp_path: Path):
    """A process that owns the run of `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "lock")], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout and process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def elsewhere(lock: Path) -> None:
    """Make the owner's file one of another machine, where no process can be looked for."""
    (path,) = lock.glob("*.json")
    who, _, beat = path.read_text().partition("\n")
    path.write_text(
        json.dumps({**json.loads(who), "machine": "another boot", "host": "node7", "job": "4711"}) + "\n" + beat
    )


def test_a_live_owner_is_refused_in_one_line(owner: subprocess.Popen, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        RunLock(tmp_path / "lock").acquire()
    assert str(caught.value).startswith(f"{tmp_path}: already being trained by process {owner.pid} on ")
    assert len(str(caught.value).splitlines()) == 1 and time.monotonic() - started < 1


def test_a_stopped_owner_is_alive(owner: subprocess.Popen, tmp_path: Path) -> None:
    owner.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # longer than a silent owner elsewhere would be waited for
    with pytest.raises(UserError, match="already being trained"):
        RunLock(tmp_path / "lock", stale_seconds=2).acquire()
    owner.send_signal(signal.SIGCONT)


def test_a_crashed_owner_is_followed_at_once(owner: subprocess.Popen, tmp_path: Path) -> None:
    owner.kill()
    owner.wait()
    started = time.monotonic()
    lock = RunLock(tmp_path / "lock")
    lock.acquire()
    assert time.monotonic() - started < 1
    assert [path.name for path in (tmp_path / "lock").iterdir()] == ["000002.json"]
    lock.check()


def test_a_process_that_took_the_number_of_the_owner_is_not_the_owner(tmp_path: Path) -> None:
    RunLock(tmp_path / "lock").acquire()
    path = tmp_path / "lock" / "000001.json"
    who, _, beat = path.read_text().partition("\n")
    path.write_text(json.dumps({**json.loads(who), "started": 1}) + "\n" + beat)  # this process, but older
    RunLock(tmp_path / "lock").acquire()


def test_an_owner_elsewhere_is_alive_while_its_counter_moves(owner: subprocess.Popen, tmp_path: Path) -> None:
    elsewhere(tmp_path / "lock")
    lock = RunLock(tmp_path / "lock", stale_seconds=2)
    with pytest.raises(UserError, match=r"already being trained by process \d+ on node7, job 4711"):
        lock.acquire()
    owner.kill()
    owner.wait()
    started = time.monotonic()
    lock.acquire()
    assert 1.9 < time.monotonic() - started < 6


def test_no_clock_is_compared(owner: subprocess.Popen, tmp_path: Path) -> None:
    """An owner whose clock is years off, before or behind, is judged by its counter alone."""
    elsewhere(tmp_path / "lock")
    for year in (1971, 2200):
        path = tmp_path / "lock" / "000001.json"
        os.utime(path, (3e7 * (year - 1970),) * 2)
        with pytest.raises(UserError, match="already being trained"):
            RunLock(tmp_path / "lock", stale_seconds=2).acquire()


def test_an_owner_that_is_asked_leaves(owner: subprocess.Popen, tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock", stale_seconds=2)
    lock.acquire(take_over=True)
    assert owner.wait(timeout=5) == 0
    lock.check()


def test_an_owner_that_does_not_leave_is_not_overrun(owner: subprocess.Popen, tmp_path: Path) -> None:
    owner.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="was asked to leave 1 s ago and has not"):
        RunLock(tmp_path / "lock", stale_seconds=2).acquire(take_over=True, patience=1)
    owner.send_signal(signal.SIGCONT)


def test_an_owner_that_slept_through_losing_the_run_writes_nothing(tmp_path: Path) -> None:
    sleeper, other = RunLock(tmp_path / "lock", stale_seconds=0.5), RunLock(tmp_path / "lock", stale_seconds=0.5)
    sleeper.acquire()
    elsewhere(tmp_path / "lock")
    other.acquire()
    with pytest.raises(UserError, match="taken over by process .* nothing was written"):
        sleeper.check()
    assert "took the run over" in str(sleeper.beat())
    sleeper.release()  # must not free what the other owns
    other.check()
    with pytest.raises(UserError, match="already being trained"):
        RunLock(tmp_path / "lock").acquire()


def test_a_file_cut_short_by_a_crash_is_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "000003.json").write_text('{"host": "no')
    lock = RunLock(tmp_path / "lock", stale_seconds=0.5)
    lock.acquire()
    assert (tmp_path / "lock" / "000004.json").is_file()


def race(folder: Path, start: float, results: multiprocessing.Queue) -> None:
    time.sleep(max(0.0, start - time.monotonic()))
    lock = RunLock(folder, stale_seconds=0.6)
    try:
        lock.acquire()
    except UserError:
        results.put("refused")
        return
    lock.check()
    results.put("owned")
    time.sleep(1)
    lock.check()


@pytest.mark.parametrize("before", ["nothing", "left", "dead", "dead elsewhere"])
def test_of_many_that_want_a_free_run_one_gets_it(before: str, tmp_path: Path) -> None:
    folder = tmp_path / "lock"
    if before != "nothing":
        lock = RunLock(folder)
        lock.acquire()
        path = folder / "000001.json"
        who, _, beat = path.read_text().partition("\n")
        if before == "left":
            lock.release()
        elif before == "dead":
            path.write_text(json.dumps({**this_process(), "started": 1}) + "\n" + beat)
        else:
            elsewhere(folder)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    start = time.monotonic() + 0.3
    racers = [context.Process(target=race, args=(folder, start, results)) for _ in range(12)]
    for racer in racers:
        racer.start()
    found = sorted(results.get(timeout=20) for _ in racers)
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0  # each owner still owned it a second later
    assert found == ["owned"] + ["refused"] * 11


def test_a_second_launch_is_refused_and_one_that_takes_over_goes_on(
    longer: Path, token_table: Path, tmp_path: Path
) -> None:
    """Two launches at once, on the real trainer: no update is lost and the end is the same to the bit."""
    run = longer_run(tmp_path / "longer")
    with subprocess.Popen(
        command(run, token_table, "--checkpoint-minutes", "0.01"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as first:
        wait_for(lambda: list(run.glob("checkpoints/step-*")), first)
        first.send_signal(signal.SIGSTOP)  # it is not to be done before the second has tried
        second = train(run, token_table)
        assert second.returncode == 2 and len(second.stderr.splitlines()) == 1, second.stderr
        assert f"already being trained by process {first.pid} on " in second.stderr
        timer = threading.Timer(4, lambda: first.send_signal(signal.SIGCONT))
        timer.start()
        third = train(run, token_table, "--take-over")
        said = first.communicate()[1]
    assert first.returncode == 75 and "which goes on with the run" in said
    last = said.splitlines()[-1].rsplit(" ", 1)[1]
    assert third.returncode == 0 and f"resumed after step {last}\n" in third.stderr, third.stderr
    assert state(run) == state(longer)
