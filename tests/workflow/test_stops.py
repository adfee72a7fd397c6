"""Jobs that are stopped and started again: an evaluation goes on where it was, and a killed job gets more memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from deconattn.experiment.record import read_spec
from deconattn.files import read_json
from deconattn.job import pieces
from deconattn.training.lock import RunLock, mark_killed
from tests.forks import Fork
from tests.project import Project
from tests.training import PATIENCE, wait_for
from tests.workflow.changes import RNDEMB

pytestmark = pytest.mark.xdist_group("workflow")


def test_an_evaluation_is_stopped_and_killed_and_its_tables_are_the_same(
    finished_copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in the place of a finished task holds the evaluation up."""
    monkeypatch.chdir(finished_copy.folder)
    (evaluation,) = Path("results/runs").glob(f"{RNDEMB}-*/evaluation-*")
    before = read_json(evaluation / "record.json")["files"]
    for name in (*before, "record.json", "done"):
        (evaluation / name).unlink()
    folder = pieces(evaluation, read_spec(evaluation)).folder
    folder.mkdir()
    pipe = folder / "skip-rte-32.json"
    os.mkfifo(pipe)
    ends: list[int] = []

    def start() -> Fork:
        arguments = ["evaluate", str(evaluation), "--device", "cpu"]
        return Fork("deconattn", arguments, finished_copy.folder, finished_copy.environment())

    def is_held_up() -> bool:
        with suppress(OSError):  # nobody reads the pipe yet
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    def scored() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in folder.glob("*-*-32.json") if path != pipe}

    first = start()
    wait_for(is_held_up, first)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(PATIENCE)[1]
    assert first.returncode == 75 and f"{evaluation.name}: stopped by SIGTERM; nothing was unsaved" in said
    os.close(ends.pop())
    kept = scored()
    assert set(kept) == {f"{name}-32.json" for name in ("full-copa", "full-rte", "full-heldout", "skip-copa")}

    second = start()
    wait_for(is_held_up, second)
    assert scored() == kept
    third = start()  # it waits, or will
    pipe.unlink()
    second.kill()
    assert third.communicate(PATIENCE) and third.returncode == 0
    os.close(ends.pop())
    assert read_json(evaluation / "record.json")["files"] == before and not folder.exists()


@pytest.mark.slow
def test_a_killed_job_gets_more_memory_and_one_that_left_does_not(finished_copy: Project) -> None:
    (run,) = finished_copy.runs(f"{RNDEMB}-*")
    shutil.rmtree(run / "model")
    for name in ("record.json", "done"):
        (run / name).unlink()

    def memory() -> int:
        said = finished_copy.snakemake("-n", "--", f"results/runs/{run.name}/done").stdout
        return int(re.search(r"mem_mb=(\d+)", said).group(1))  # type: ignore[union-attr]

    assert memory() == 4000
    lock = RunLock(run / "lock")
    lock.acquire()
    lock.release()
    assert memory() == 4000
    mark_killed(run)
    assert memory() == 5000


@pytest.mark.slow
def test_a_large_part_of_the_text_has_the_time_that_its_size_takes(tmp_path: Path) -> None:
    said = Project.copy(tmp_path).snakemake("-n", config="config/paper.yaml").stdout
    limits = re.findall(r"^rule tokenize_part:\n(?:    .*\n)*?    resources: .*\bruntime=(\d+)", said, re.MULTILINE)
    assert len(limits) == 64 and set(limits) == {str(60 + round(220e9 / 64 / 0.4e6 / 60))}
