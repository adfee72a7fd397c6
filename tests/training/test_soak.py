"""Fifty kills at random moments over one training: the end is the same to the bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.training import PATIENCE, log, longer_run, resumed, spawn, start, state, train

KILLS = 50
STEPS = 1200
SEED = 20_251_011
OFTEN = ("--checkpoint-minutes", "0.0005")


@pytest.mark.slow
def test_fifty_kills_change_nothing(token_table: Path, tmp_path: Path) -> None:
    """Two in five fall anywhere, mostly into starting up; the others into training and its checkpoints, once it trains."""
    draw = random.Random(SEED)
    twin = longer_run(tmp_path / "twin" / "longer", STEPS)
    assert train(twin, token_table).returncode == 0
    run = longer_run(tmp_path / "longer", STEPS)
    numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
    ends = []
    for _ in range(KILLS):
        anywhere, number = draw.random() < 0.4, draw.choice(numbers)
        moment, more = draw.uniform(0, 2.5) if anywhere else draw.uniform(0, 0.03), draw.randrange(7)
        before = log(run).count("\n")
        process = spawn(run, token_table, *OFTEN) if anywhere else start(run, token_table, *OFTEN)
        # By what it has logged and not by the clock alone: a busy machine is killed as far into its work as an idle one.
        while not anywhere and process.poll() is None and log(run).count("\n") <= before + more:
            time.sleep(0.002)
        time.sleep(moment)
        assert process.poll() is None, process.communicate()[1]  # it lives until it is killed
        process.send_signal(number)
        printed = process.communicate(timeout=PATIENCE)[1]
        # A signal that comes before the trainer listens ends it as it ends any process; later it is answered with 75.
        assert process.returncode in (75, -number, 128 + number), (number, printed)
        # Ctrl-C within Python's own start, before a line of ours, is said by Python.
        assert "Traceback" not in printed or printed.rstrip().endswith("KeyboardInterrupt"), printed
        assert not (run / "record.json").exists(), "the training ended before it was killed so often: make it longer"
        ends.append(process.returncode)
    steps = resumed(run)
    assert "damaged" not in log(run)
    assert steps == sorted(steps) and len(set(steps)) > KILLS // 5, steps
    assert ends.count(75) > KILLS // 12 and ends.count(-signal.SIGKILL) > KILLS // 6, ends
    done = train(run, token_table)
    assert done.returncode == 0, done.stderr
    assert state(run) == state(twin)
