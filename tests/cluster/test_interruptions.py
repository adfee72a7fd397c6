"""Weeks on a cluster in minutes, on a real Slurm: time limits, requeues, a crash, a lost node, an interrupted snakemake."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest

from deconattn.files import read_json
from tests import training
from tests.cluster.cluster import Slurm
from tests.project import Project
from tests.training import PATIENCE, checkpoints, resumed, state, trainers, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]
SEED = 20_251_011


wait_until = partial(wait_for, pause=0.5)  # each look asks Slurm, or all processes of the machine


def targets(runs: list[Path]) -> list[str]:
    """What to ask Snakemake for: trainings alone."""
    return ["--", *(f"results/runs/{run.name}/done" for run in runs)]


def running(slurm: Slurm) -> list[dict[str, str]]:
    """Jobs that are not over, waiting ones too."""
    return [job for job in slurm.jobs() if job["JobState"] in ("RUNNING", "PENDING", "COMPLETING")]


def memory(job: dict[str, str]) -> float:
    """MB of main memory that a job asked for on each node."""
    size = job["MinMemoryNode"]
    return float(size[:-1]) * (1024 if size.endswith("G") else 1)


def saved(run: Path) -> int:
    """Updates that the newest checkpoint has."""
    return max((int(path.name[5:]) for path in checkpoints(run)), default=0)


def story_of(log: Path, runs: list[Path]) -> str:
    """What befell the trainings, line by line, and after it what snakemake said."""
    told = [f"{run.name}: {line}" for run in runs for line in training.log(run).splitlines() if "step-" not in line]
    return "\n".join([*(line for line in told if " step " not in line or "after step" in line), log.read_text()])


def assert_nothing_was_lost(run: Path) -> None:
    """Each attempt went on from the very last checkpoint that was saved before it."""
    text, last = training.log(run), 0
    for line in text.splitlines():
        if "saved step-" in line:
            last = int(line.split("saved step-")[1].split()[0])
        elif "resumed after step" in line:
            assert 0 < int(line.rsplit(" ", 1)[1]) == last, text


def undisturbed(specified: Project, run: Path, folder: Path) -> Path:
    """The same training, by hand and alone."""
    twin = folder / run.name
    twin.mkdir(parents=True)
    shutil.copy(specified.folder / "results/runs" / run.name / "spec.json", twin)
    (tokens,) = (specified.folder / "results/tokens").iterdir()
    done = specified.deconattn("pretrain", str(twin), str(tokens), "--device", "cpu", "--keep-checkpoints")
    assert done.returncode == 0, done.stderr
    return twin


def test_the_profile_brings_a_grid_to_its_end(
    specified: Project, project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    """Under the profile as it is, but for `retries: 1`: three trainings side by side, each with a GPU, and all that follows.

    One meets its time limit three times, the first time as Slurm itself gives notice; one is requeued, crashes, and its
    evaluation is stopped half-way; one loses its node. What is disturbed is halted (SIGSTOP) before. Slurm wakes it as it does
    sleeping jobs, with the SIGCONT that comes with its signals.
    """
    limited, disturbed, bereft = project.runs()
    log = tmp_path / "snakemake.log"
    process = slurm.launch(project, log, "--retries", "1")
    # Trained alone meanwhile, while those of the cluster wait.
    alone = ThreadPoolExecutor(1)
    twins = [alone.submit(undisturbed, specified, run, tmp_path / "twins") for run in project.runs()]
    why = lambda: story_of(log, project.runs())  # noqa: E731

    def halt(attempt: int, *runs: Path) -> dict[Path, dict[str, str]]:
        """Halt each training once it trains in its `attempt`-th start and has saved since; returns their jobs."""
        halted: set[Path] = set()

        def all_are_halted() -> bool:
            for run in set(runs) - halted:
                if len(resumed(run)) >= attempt and saved(run) > (resumed(run)[-1] if attempt else 0):
                    for trainer in trainers(run):
                        trainer.send_signal(signal.SIGSTOP)
                        halted.add(run)
            return halted == set(runs)

        wait_until(all_are_halted, process, why=why)
        jobs = {run: slurm.job_of(run) for run in runs}
        assert all(jobs.values()), why()
        return jobs  # type: ignore[return-value]

    def notify(job: dict[str, str], halted: list[psutil.Process]) -> None:
        """Send what Slurm sends before the time limit, without waiting for it."""
        slurm.call("scancel", "--signal=USR1", job["JobId"])
        for process in halted:
            process.send_signal(signal.SIGCONT)

    def again(run: Path, starts: int) -> None:
        """Wait until a training has put itself back into the queue so many times."""
        wait_until(lambda: training.log(run).count("is in the queue again") == starts, process, why=why)

    try:
        jobs = halt(0, limited, disturbed, bereft)
        assert all("gpu" in job.get("TresPerJob", job.get("TresPerNode", "")) for job in jobs.values()), jobs
        first = jobs[limited]["JobId"]
        slurm.call("scontrol", "requeue", jobs[disturbed]["JobId"])
        end = datetime.now() + timedelta(seconds=110)  # Slurm gives notice two minutes before, when it looks next
        slurm.call("scontrol", "update", f"JobId={first}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
        again(limited, 1)
        slurm.call("scontrol", "update", f"JobId={first}", "TimeLimit=30")
        halt(1, limited, disturbed)
        notify(jobs[limited], trainers(limited))
        again(limited, 2)
        halt(2, limited)
        notify(jobs[limited], trainers(limited))
        again(limited, 3)
        trainers(disturbed)[0].kill()

        wait_until(lambda: list(disturbed.glob("evaluation-*/pieces-*/*.json")), process, why=why, pause=0.005)
        (evaluation,) = disturbed.glob("evaluation-*")
        (evaluator,) = trainers(evaluation, "evaluate")
        evaluator.send_signal(signal.SIGSTOP)
        evaluating = slurm.job_of(disturbed, "evaluate")
        assert evaluating and not (evaluation / "record.json").exists(), "it was done before it was stopped"
        notify(evaluating, [evaluator])
        # Until nothing else runs, lest it lose the node too.
        wait_until(lambda: [job["JobId"] for job in running(slurm)] == [jobs[bereft]["JobId"]], process, why=why)

        # The node of the third dies with its slurmd alone: what it runs goes on, cut off, beside the job's second start.
        node = jobs[bereft]["NodeList"]
        (zombie,) = trainers(bereft)
        slurm.lose_node(node)
        wait_until(lambda: list(bereft.glob("lock/*.ask")), process, why=why)
        zombie.send_signal(signal.SIGCONT)
        assert process.wait(timeout=PATIENCE) == 0, why()
    finally:
        if process.poll() is None:
            process.kill()
        slurm.revive()
    # At least: a Slurm on a busy machine may disturb them once more, which must not change the result either.
    states = {job["JobId"]: job for job in slurm.jobs()}
    (only,) = slurm.jobs_of(project, "pretrain", limited)
    assert only["JobId"] == first and int(only["Restarts"]) >= 3 and len(resumed(limited)) >= 3, why()
    crashed, retried = slurm.jobs_of(project, "pretrain", disturbed)
    assert int(crashed["Restarts"]) >= 1 and crashed["JobState"] == "FAILED", why()
    assert memory(retried) == memory(crashed) * 5 / 4, "as it was killed, which may mean that memory ran out"
    assert int(states[evaluating["JobId"]]["Restarts"]) >= 1 and states[evaluating["JobId"]]["JobState"] == "COMPLETED"
    assert int(states[jobs[bereft]["JobId"]]["Restarts"]) >= 1, why()
    assert states[jobs[bereft]["JobId"]]["NodeList"] != node, why()
    (measured,) = slurm.jobs_of(project, "measure")
    assert measured["Partition"] == "gpu" and measured["JobState"] == "COMPLETED", why()
    assert not slurm.jobs_of(project, "table"), "tables are drawn where snakemake runs"
    assert project.planned() == {} and project.deconattn("verify").returncode == 0
    for run, twin in zip(project.runs(), twins, strict=True):
        assert_nothing_was_lost(run)
        assert state(run) == state(twin.result(timeout=PATIENCE))


def test_snakemake_is_interrupted_and_the_same_command_finishes(
    long_project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    """By SIGINT, SIGTERM and SIGKILL at random moments: nothing starts from zero, none but the last interval is done again.

    Trainings that run on alone are halted (SIGSTOP) until their successors ask for the run, lest they be done before.
    """
    project, draw = long_project, random.Random(SEED)
    log, runs = tmp_path / "snakemake.log", project.runs()[1:]
    why = lambda: story_of(log, runs)  # noqa: E731

    def begun() -> int:
        for run in runs:
            if list(run.glob("lock/*.ask")):
                for trainer in trainers(run):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it has left meanwhile
                        trainer.send_signal(signal.SIGCONT)
        return sum(len(resumed(run)) + bool(training.log(run)) for run in runs)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = begun()
        process = slurm.launch(project, log, *targets(runs))
        wait_until(lambda before=before: begun() > before, why=why)
        time.sleep(draw.uniform(0, 3))
        process.send_signal(number)
        if number == signal.SIGTERM:
            # Snakemake waits for what runs. A second signal, as an impatient user sends it, ends it.
            time.sleep(2)
            process.kill()
        process.wait(timeout=PATIENCE)
        assert process.returncode != 0, "it was done before it was interrupted: make the trainings longer"
        if number != signal.SIGINT:
            for trainer in itertools.chain(*map(trainers, runs)):
                trainer.send_signal(signal.SIGSTOP)
        subprocess.run(
            project.command("--unlock"), cwd=project.folder, env=project.environment(), check=True, capture_output=True
        )
    process = slurm.launch(project, log, *targets(runs))
    wait_until(lambda: begun() and process.poll() is not None, why=why)
    assert process.returncode == 0, why()
    for run in runs:
        assert read_json(run / "record.json")["status"] == "finished"
        assert_nothing_was_lost(run)
        assert len(resumed(run)) <= 8, why()
