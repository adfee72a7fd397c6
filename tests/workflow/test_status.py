"""`deconattn status` on a grid that runs, and which of its trainings start first."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.project import CONFIG, Project
from tests.training import PATIENCE, wait_for

pytestmark = pytest.mark.xdist_group("workflow")
EVALUATIONS = 1000
GRID = """
  - {models: [tiny], variants: [mlp], seeds: [1], training: {peak_learning_rate: 1e30, on_divergence: record}}
  - {models: [tiny], variants: [mlp], seeds: [2], training: {peak_learning_rate: 1e30}}
  - {models: [tiny], variants: [mlp], seeds: [3], training: {steps: 100000}}
  - {models: [tiny], variants: [mlp], seeds: [4], training: {steps: 200000}}
"""


def asked(project: Project) -> dict:
    """`deconattn status --json`."""
    done = project.deconattn("status", CONFIG, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shown(project: Project, columns: int) -> str:
    """The table, as `watch` shows it."""
    code = "import sys; from deconattn.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "status", CONFIG], cwd=project.folder, capture_output=True, text=True,
        env={**project.environment(), "COLUMNS": str(columns)},
    )  # fmt: skip
    assert done.returncode == 0 and "\x1b" not in done.stdout, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_state_of_each_run_while_the_grid_runs(finished_copy: Project) -> None:
    project = finished_copy
    project.edit(CONFIG, "layouts: [even]}\n", f"layouts: [even]}}{GRID}")
    runs = asked(project)["runs"]
    assert [run["state"] for run in runs] == ["finished"] * 3 + ["missing"] * 4
    targets = [f"{run['folder']}/done" for run in runs[3:]]
    grid = subprocess.Popen(
        project.command("--cores", "1", *targets), cwd=project.folder, env=project.environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: asked(project)["runs"][5]["step"] > 1, grid)
        found = asked(project)
        table = shown(project, 80)
        live = project.deconattn("report", CONFIG)
    finally:
        if grid.poll() is None:
            os.killpg(grid.pid, signal.SIGINT)
        said = grid.communicate(timeout=PATIENCE)[0]
    assert "Terminating processes on user request" in said and "Traceback" not in said, said
    assert re.search(r"^stopped: \d+ of \d+ jobs in ", said, re.M), said
    diverged, failed, running, queued = found["runs"][3:]
    states = ["diverged", "failed", "running", "queued"]
    assert [run["state"] for run in (diverged, failed, running, queued)] == states, said
    assert all("is not finite at step 2" in run["note"] for run in (diverged, failed))
    assert re.match(r"process \d+ on ", running["note"]) and running["hours_left"] > 0 and running["attempts"] == 1
    assert running["loss"] and running["tokens_per_second"]
    assert queued["gpu_hours_left"] > 0 and queued["attempts"] == 0
    sums = found["totals"]
    assert sums["finished"] == 3 and sums["unknown"] == 0
    assert sums["gpu_hours_left"] == pytest.approx(sum(run["gpu_hours_left"] for run in found["runs"]))

    assert sum(line.startswith("tiny-") for line in table.splitlines()) == 7, table
    assert "7 runs: 3 finished · 1 diverged · 1 running · 1 failed · 1 queued" in table
    assert "then: 3 of 7 evaluated" in table
    assert live.returncode == 0, live.stderr
    page = (project.folder / "results/reports/test/live.html").read_text()
    written = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [row["status"] for row in written["runs"][3:]] == states
    drawn = {curve["run"]: curve for curve in written["curves"]}
    assert running["run"] in drawn and queued["run"] not in drawn and min(drawn[running["run"]]["tokens"]) == 4 * 32
    stopped = asked(project)["runs"][5]
    assert stopped["state"] == "stopped" and "stopped by SIGINT after step" in stopped["note"]
    assert list((project.folder / stopped["folder"]).glob("checkpoints/step-*"))


def test_small_models_and_standard_start_first(finished_copy: Project) -> None:
    project = finished_copy
    larger = "  big: {hidden_size: 64, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 2}\n"
    project.edit(CONFIG, "\ntraining:\n", f"{larger}\ntraining:\n")
    project.edit(
        CONFIG, "{models: [tiny], variants: [standard, mlp]", "{models: [big, tiny], variants: [mlp, standard]"
    )
    project.edit(CONFIG, "steps: 12", "steps: 13")
    said = project.snakemake("-n").stdout
    found = re.findall(
        r"^rule pretrain:\n(?:    .+\n)*?    output: results/runs/([\w-]+)-\w{8}/done\n((?:    .+\n)*)", said, re.M
    )
    priority = {name: int((re.findall(r"priority: (\d+)", rest) or ["0"])[0]) for name, rest in found}
    names = ("tiny-standard-uniform-s0", "tiny-mlp-uniform-s0", "big-standard-uniform-s0", "big-mlp-uniform-s0")
    first, second, third, fourth = (priority[name] for name in names)
    assert first > second > third > fourth, said
    assert f"priority: {EVALUATIONS}" in said and first < EVALUATIONS
