"""Fifty kills at random moments over one training: the end is the same to the bit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.training import command, longer_run, state, train

pytestmark = pytest.mark.xdist_group("soak")
KILLS = 50
SEED = 20_251_011


def spoken(log: Path) -> int:
    """Lines of a training's log: that it goes on, and each checkpoint."""
    return log.read_text().count("\n") if log.exists() else 0


def test_fifty_kills_change_nothing(longer: Path, token_table: Path, tmp_path: Path) -> None:
    """Two in five fall anywhere, mostly into starting up; the others into training and its checkpoints, once it trains."""
    draw = random.Random(SEED)
    run = longer_run(tmp_path / "longer")
    log = run / "log" / "pretrain.log"
    numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
    ends = []
    for _ in range(KILLS):
        anywhere, number = draw.random() < 0.4, draw.choice(numbers)
        moment, more = draw.uniform(0, 2.5) if anywhere else draw.uniform(0, 0.03), draw.randrange(7)
        before = spoken(log)
        with subprocess.Popen(
            command(run, token_table, "--checkpoint-minutes", "0.0005"), cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as process:
            # By what it has done and not by the clock alone: a busy machine is killed as far into its work as an idle one.
            while not anywhere and process.poll() is None and spoken(log) <= before + more:
                time.sleep(0.002)
            time.sleep(moment)
            assert process.poll() is None, process.communicate()[1]  # it lives until it is killed
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        # A signal that comes before the trainer listens ends it as it ends any process; later it is answered with 75.
        assert process.returncode in (75, -number, 128 + number), (number, said)
        assert "Traceback" not in said, said
        assert not (run / "done.json").exists(), "the training ended before it was killed so often: make it longer"
        ends.append(process.returncode)
    text = log.read_text()
    resumed = [int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if "resumed after step" in line]
    assert "damaged" not in text
    assert resumed == sorted(resumed) and len(set(resumed)) > KILLS // 5, resumed
    assert ends.count(75) > KILLS // 12 and ends.count(-signal.SIGKILL) > KILLS // 6, ends
    done = train(run, token_table)
    assert done.returncode == 0, done.stderr
    assert state(run) == state(longer)
