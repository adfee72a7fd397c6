"""What is seen of a training from outside: its state, and its curve as it grows."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from deconattn.experiment.artefact import Artefact
from deconattn.status import Status, status_of
from deconattn.training.progress import COLUMNS
from tests.training import PATIENCE, checkpoints, curve, longer_run, start, train, wait_for

STEPS = 300


def status(run: Path) -> Status:
    return status_of(run.name, Artefact("pretrain", run, json.loads((run / "spec.json").read_text()), "tiny"))


def rows(run: Path) -> list[dict[str, str]]:
    """curve.csv as it is, each row whole."""
    header, *lines = (run / "curve.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    return [dict(zip(COLUMNS, line.split(","), strict=True)) for line in lines]


@pytest.mark.slow
def test_a_training_is_queued_running_killed_stopped_and_finished(tmp_path: Path, token_table: Path) -> None:
    run = longer_run(tmp_path / "run", STEPS)
    seen = status(run)
    assert (seen.state, seen.step, seen.steps, seen.attempts, seen.note) == ("queued", 0, STEPS, 0, "")
    assert seen.gpu_hours == 0 and seen.gpu_hours_left is None

    for number, state in ((signal.SIGKILL, "failed"), (signal.SIGTERM, "stopped")):
        before = len(checkpoints(run)) and int(checkpoints(run)[-1].name[-8:])
        process = start(run, token_table, "--checkpoint-minutes", "0.0001")
        wait_for(lambda: checkpoints(run) and int(checkpoints(run)[-1].name[-8:]) > before + 2, process)  # noqa: B023
        seen = status(run)
        assert seen.state == "running" and f"process {process.pid} on " in seen.note
        assert seen.step >= 1 and seen.loss and seen.tokens_per_second and seen.hours_left and seen.gpu_hours_left
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        seen = status(run)
        assert seen.state == state and seen.step < STEPS, seen
    assert "stopped by SIGTERM after step" in seen.note and seen.attempts == 2

    reached = int(checkpoints(run)[-1].name[-8:])
    # Of an attempt that came further than its checkpoint, and was cut short.
    with (run / "curve.csv").open("a") as stream:
        stream.write(f"{reached + 1},99,0,1,1,\n{reached + 2},99,0,1,1,\n12")
    assert train(run, token_table).returncode == 0
    steps = [int(row["step"]) for row in rows(run)]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS and reached + 1 in steps
    truth = {row["step"]: row for row in curve(run)}
    for row in rows(run):
        for name in ("loss", "learning_rate"):
            assert float(row[name]) == pytest.approx(truth[int(row["step"])][name], rel=1e-6)
    facts = {"status": "finished", "steps": STEPS, "seconds": 7200, "processes": 2}
    (run / "record.json").write_text(json.dumps({"spec": json.loads((run / "spec.json").read_text()), **facts}))
    seen = status(run)
    assert (seen.state, seen.step, seen.attempts) == ("finished", STEPS, 3)
    assert (seen.gpu_hours, seen.gpu_hours_left) == (4.0, 0.0)


def test_why_an_attempt_failed_is_said_until_the_next_begins(tmp_path: Path, token_table: Path) -> None:
    run = longer_run(tmp_path / "run")
    assert train(run, tmp_path / "nowhere").returncode == 2
    assert status(run).state == "failed" and "nowhere" in status(run).note
    process = start(run, token_table, "--checkpoint-minutes", "0.0001")
    wait_for(lambda: checkpoints(run), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert status(run).state == "stopped" and "stopped by SIGTERM" in status(run).note
