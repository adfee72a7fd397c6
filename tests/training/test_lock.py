"""One writer a run: who gets it, who is refused, and what happens to owners that crash, sleep or live elsewhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.training import lock
from deconattn.training.lock import RunLock
from tests.conftest import ROOT
from tests.training import PATIENCE, longer_run, start, state, train, wait_for

OWNER = """
import sys, time
from pathlib import Path
from deconattn.training.lock import RunLock
lock = RunLock(Path(sys.argv[1]), stale_seconds=2)
lock.acquire()
print("owned", flush=True)
while not lock.beat():
    time.sleep(lock.beat_seconds)
lock.release()
"""
TAKEN = "already being trained by process"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the lock of a run lies."""
    return tmp_path / "lock"


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that owns the run."""
    with subprocess.Popen([sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def change(folder: Path, **facts: object) -> None:
    """Change what the first owner's file says."""
    path = folder / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def elsewhere(folder: Path) -> None:
    """Put the first owner on another machine, where no process can be looked for."""
    change(folder, machine="another boot", host="node7", job="4711")


def never(seconds: float) -> None:
    raise AssertionError(f"it waited {seconds} s")


def test_one_that_waits_gets_the_run_when_its_owner_ends(
    owner: subprocess.Popen[bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: (owner.kill(), owner.wait()))
    RunLock(folder).acquire(wait=True)
    assert owner.returncode == -signal.SIGKILL and not list(folder.glob("*.ask"))


def test_a_live_owner_is_refused_and_a_crashed_one_is_followed_at_once(
    owner: subprocess.Popen[bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.time, "sleep", never)
    with pytest.raises(UserError) as caught:
        RunLock(folder).acquire()
    assert str(caught.value).startswith(f"{folder.parent}: {TAKEN} {owner.pid} on ")
    assert len(str(caught.value).splitlines()) == 1
    owner.kill()
    owner.wait()
    mine = RunLock(folder)
    mine.acquire()
    mine.check()


def test_a_stopped_owner_is_alive_and_is_not_overrun(owner: subprocess.Popen[bytes], folder: Path) -> None:
    owner.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # longer than a silent owner elsewhere would be waited for
    mine = RunLock(folder, stale_seconds=2)
    with pytest.raises(UserError, match=TAKEN):
        mine.acquire()
    with pytest.raises(UserError, match="was asked to leave 1 s ago and has not"):
        mine.acquire(take_over=True, patience=1)
    owner.send_signal(signal.SIGCONT)
    mine.acquire(take_over=True)  # awake, it leaves
    assert owner.wait(timeout=PATIENCE) == 0
    mine.check()


def test_an_owner_elsewhere_is_alive_while_it_touches_its_file(owner: subprocess.Popen[bytes], folder: Path) -> None:
    elsewhere(folder)
    mine = RunLock(folder, stale_seconds=2)
    for year in (1971, 2200):  # no clock is compared
        os.utime(folder / "000001.json", (3e7 * (year - 1970),) * 2)
        with pytest.raises(UserError, match=rf"{TAKEN} \d+ on node7, job 4711"):
            mine.acquire()
    owner.kill()
    owner.wait()
    started = time.monotonic()
    mine.acquire()
    assert time.monotonic() - started > 2


def test_an_owner_that_slept_through_losing_the_run_writes_nothing(folder: Path) -> None:
    sleeper, other = RunLock(folder, stale_seconds=0.5), RunLock(folder, stale_seconds=0.5)
    sleeper.acquire()
    elsewhere(folder)
    other.acquire()
    with pytest.raises(UserError, match="taken over by process .* nothing was written"):
        sleeper.check()
    assert "took the run over" in str(sleeper.beat())
    sleeper.release()  # must not free what the other owns
    other.check()
    with pytest.raises(UserError, match=TAKEN):
        RunLock(folder).acquire()


def race(folder: Path, start: Barrier, results: multiprocessing.Queue, all_have_tried: Event) -> None:
    start.wait()
    mine = RunLock(folder, stale_seconds=0.6)
    try:
        mine.acquire()
    except UserError:
        results.put("refused")
        return
    mine.check()
    results.put("owned")
    all_have_tried.wait()  # the run of a process that has ended is free
    mine.check()


@pytest.mark.parametrize("before", ["nothing", "left", "dead elsewhere", "cut short"])
def test_of_many_that_want_a_free_run_one_gets_it(before: str, folder: Path) -> None:
    if before != "nothing":
        former = RunLock(folder)
        former.acquire()
        if before == "left":
            former.release()
        elif before == "dead elsewhere":
            elsewhere(folder)
        else:
            os.truncate(folder / "000001.json", 12)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    start, all_have_tried = context.Barrier(12), context.Event()
    racers = [context.Process(target=race, args=(folder, start, results, all_have_tried)) for _ in range(12)]
    for racer in racers:
        racer.start()
    found = sorted(results.get(timeout=PATIENCE) for _ in racers)
    all_have_tried.set()
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0  # the owner still owned it in the end
    assert found == ["owned"] + ["refused"] * 11


@pytest.mark.slow
def test_a_second_launch_is_refused_and_one_that_takes_over_goes_on(
    longer: Path, token_table: Path, tmp_path: Path
) -> None:
    """Two launches at once, on the real trainer: no update is lost and the end is the same to the bit."""
    run = longer_run(tmp_path / "longer")
    first = start(run, token_table, "--checkpoint-minutes", "0.002")
    wait_for(lambda: list(run.glob("checkpoints/step-*")), first)
    first.send_signal(signal.SIGSTOP)  # it is not to be done before the second has tried
    second = train(run, token_table)
    assert second.returncode == 2 and len(second.stderr.splitlines()) == 1, second.stderr
    assert f"{TAKEN} {first.pid} on " in second.stderr
    takes_over = start(run, token_table, "--take-over")
    wait_for(lambda: list(run.glob("lock/*.ask")), takes_over)
    first.send_signal(signal.SIGCONT)
    left, took = first.communicate(PATIENCE)[1], takes_over.communicate(PATIENCE)[1]
    assert first.returncode == 75 and "which goes on with the run" in left
    last = left.splitlines()[-1].rsplit(" ", 1)[1]
    assert takes_over.returncode == 0 and f"resumed after step {last}\n" in took, took
    assert state(run) == state(longer)
