"""Weeks on a cluster in a minute: time limits, requeues, a lost node, a snakemake that is interrupted; on a real Slurm."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from deconattn.files import read_json
from tests.cluster.cluster import Slurm, wait_until
from tests.project import Project
from tests.training import state

pytestmark = pytest.mark.xdist_group("cluster")
SEED = 20_251_011
PATIENCE = 300  # seconds; a machine that does much else takes long to start the three Pythons of a job


def snakemake(
    project: Project, slurm: Slurm, log: Path, *options: str, runs: list[Path] | None = None
) -> subprocess.Popen:
    """Start `snakemake --profile slurm` for trainings (all if not said), its words appended to `log`."""
    targets = [f"results/runs/{run.name}/done.json" for run in runs or project.runs()]
    with open(log, "a") as stream:
        return subprocess.Popen(
            project.command("--profile", "slurm", *options, "--", *targets), cwd=project.folder,
            env={**project.environment(), **slurm.environment, "PATH": f"{slurm.state / 'bin'}:{project.environment()['PATH']}"},
            stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def trainers(run: Path) -> list[psutil.Process]:
    """Processes that train a run of this very project, on whatever node."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if (
            "pretrain" in words
            and f"results/runs/{run.name}" in words
            and run.is_relative_to(process.info["cwd"] or "?")
        ):
            found.append(process)
    return found


def text_of(run: Path) -> str:
    log = run / "log" / "pretrain.log"
    return log.read_text() if log.exists() else ""


def saved(run: Path) -> int:
    """Updates that the newest checkpoint has."""
    return max((int(path.name[5:]) for path in run.glob("checkpoints/step-*")), default=0)


def attempts(run: Path) -> list[int]:
    """After which update each attempt but the first went on."""
    return [int(line.rsplit(" ", 1)[1]) for line in text_of(run).splitlines() if "resumed after step" in line]


def story_of(log: Path, runs: list[Path]) -> str:
    """What befell the trainings, line by line, and after it what snakemake said."""
    told = [f"{run.name}: {line}" for run in runs for line in text_of(run).splitlines() if "step-" not in line]
    return "\n".join([*(line for line in told if " step " not in line or "after step" in line), log.read_text()])


def assert_nothing_was_lost(run: Path) -> None:
    """Each attempt went on from the very last checkpoint that was saved before it."""
    text, last = text_of(run), 0
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
    done = subprocess.run(
        [*specified.command()[:1], "-m", "deconattn", "pretrain", str(twin), str(tokens), "--device", "cpu"],
        cwd=specified.folder, env=specified.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return twin


def test_time_limits_a_requeue_and_a_lost_node(
    specified: Project, project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    """Three trainings side by side, each with a GPU: one meets its time limit twice, one is requeued, one loses its node.

    Trainings are halted (SIGSTOP) for as long as the cluster takes to notice: Slurm looks at time limits twice a minute. It wakes
    them as it does sleeping jobs, with the SIGCONT that comes with its signals.
    """
    limited, requeued, bereft = project.runs()
    log = tmp_path / "snakemake.log"
    process = snakemake(project, slurm, log, "--retries", "5")
    why = lambda: story_of(log, project.runs())  # noqa: E731

    def halt(attempt: int, *runs: Path) -> dict[Path, dict[str, str]]:
        """Halt each training once it trains in its `attempt`-th start and has saved since; returns their jobs."""
        halted: set[Path] = set()

        def all_are_halted() -> bool:
            for run in set(runs) - halted:
                if len(attempts(run)) >= attempt and saved(run) > (attempts(run)[-1] if attempt else 0):
                    for trainer in trainers(run):
                        trainer.send_signal(signal.SIGSTOP)
                        halted.add(run)
            return halted == set(runs)

        wait_until(all_are_halted, PATIENCE, why)
        jobs = {run: slurm.job_of(run) for run in runs}
        assert all(jobs.values()), why()
        return jobs  # type: ignore[return-value]

    def end_soon(job: dict[str, str]) -> None:
        end = datetime.now() + timedelta(seconds=1)
        slurm.call("scontrol", "update", f"JobId={job['JobId']}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")

    try:
        jobs = halt(0, limited, requeued, bereft)
        assert all("gpu" in job.get("TresPerJob", job.get("TresPerNode", "")) for job in jobs.values()), jobs
        slurm.call("scontrol", "requeue", jobs[requeued]["JobId"])
        end_soon(jobs[limited])
        wait_until(lambda: "stopped by SIG" in text_of(limited), PATIENCE, why)
        end_soon(halt(1, limited)[limited])
        # Until their jobs are over, lest they lose the node too.
        others = (limited, requeued)
        wait_until(lambda: all((run / "done.json").exists() for run in others), PATIENCE, why)
        wait_until(lambda: not any(slurm.job_of(run) for run in others), PATIENCE, why)

        # The node of the third dies with its slurmd alone: what it runs goes on, cut off, beside the job's second start.
        node = jobs[bereft]["NodeList"]
        (zombie,) = trainers(bereft)
        slurm.lose_node(node)
        wait_until(lambda: list(bereft.glob("lock/*.ask")), PATIENCE, why)
        zombie.send_signal(signal.SIGCONT)
        assert process.wait(timeout=PATIENCE) == 0, why()
    finally:
        if process.poll() is None:
            process.kill()
        slurm.revive()
    # At least: a Slurm on a busy machine may disturb them once more, which must not change the result either.
    assert text_of(limited).count("stopped by SIG") >= 2, why()
    assert len(attempts(limited)) >= 2 and attempts(requeued) and attempts(bereft), why()
    states = {job["JobId"]: job for job in slurm.jobs()}
    assert states[jobs[limited]["JobId"]]["JobState"] == "TIMEOUT", why()
    assert int(states[jobs[requeued]["JobId"]]["Restarts"]) >= 1, why()
    assert int(states[jobs[bereft]["JobId"]]["Restarts"]) >= 1, why()
    assert states[jobs[bereft]["JobId"]]["NodeList"] != node, why()
    for run in project.runs():
        assert_nothing_was_lost(run)
        assert state(run) == state(undisturbed(specified, run, tmp_path / "twins"))


def test_snakemake_is_interrupted_and_the_same_command_finishes(project: Project, slurm: Slurm, tmp_path: Path) -> None:
    """By SIGINT, SIGTERM and SIGKILL at random moments: nothing starts from zero, none but the last interval is done again.

    Trainings that run on alone are halted (SIGSTOP) until their successors ask for the run, lest they be done before.
    """
    draw = random.Random(SEED)
    log = tmp_path / "snakemake.log"
    why = lambda: story_of(log, project.runs())  # noqa: E731

    def begun() -> int:
        for run in project.runs():
            if list(run.glob("lock/*.ask")):
                for trainer in trainers(run):
                    trainer.send_signal(signal.SIGCONT)
        return sum(len(attempts(run)) + bool(text_of(run)) for run in project.runs())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = begun()
        process = snakemake(project, slurm, log)
        wait_until(lambda before=before: begun() > before, PATIENCE, why)
        time.sleep(draw.uniform(0, 3))
        process.send_signal(number)
        if number == signal.SIGTERM:
            # Snakemake waits for what runs. A second signal, as an impatient user sends it, ends it.
            time.sleep(2)
            process.kill()
        process.wait(timeout=PATIENCE)
        assert process.returncode != 0, "it was done before it was interrupted: make the trainings longer"
        if number != signal.SIGINT:
            for trainer in itertools.chain(*map(trainers, project.runs())):
                trainer.send_signal(signal.SIGSTOP)
        subprocess.run(
            project.command("--unlock"), cwd=project.folder, env=project.environment(), check=True, capture_output=True
        )
    process = snakemake(project, slurm, log)
    wait_until(lambda: begun() and process.poll() is not None, PATIENCE, why)
    assert process.returncode == 0, why()
    for run in project.runs():
        assert read_json(run / "done.json")["status"] == "finished"
        assert_nothing_was_lost(run)
        assert len(attempts(run)) <= 8, why()
