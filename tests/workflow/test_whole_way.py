"""The real Snakefile on a small grid: the whole way, the second launch, what a change redoes, a killed training."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.project import Project

pytestmark = pytest.mark.xdist_group("workflow")


def test_every_stage_leaves_what_it_should(finished: Project) -> None:
    runs = finished.runs()
    assert [run.name.rsplit("-", 1)[0] for run in runs] == [
        "tiny-mlp-uniform-s0", "tiny-rndembqk-even-s0", "tiny-standard-uniform-s0"]  # fmt: skip
    for run in runs:
        names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        assert {
            "spec.json", "done.json", "train.parquet", "evaluation.parquet", "samples.parquet",
            "model/config.json", "model/model.safetensors",
        } <= names  # fmt: skip
        assert pq.read_table(run / "train.parquet").num_rows == 12
    modes = {run.name: sorted(set(pd.read_parquet(run / "evaluation.parquet")["mode"])) for run in runs}
    assert list(modes.values()) == [["full"], ["full", "skip", "skip_mixer"], ["full"]]
    report = finished.folder / "results/reports/test"
    for name in ("table1.html", "table1.tex", "table1.csv", "table1.parquet"):
        assert (report / "tables" / name).stat().st_size > 500
    for name in ("figure4", "figure5"):
        for kind in ("svg", "pdf", "png", "json"):
            assert (report / "figures" / f"{name}.{kind}").stat().st_size > 100


def test_the_table_has_every_model_and_skip(finished: Project) -> None:
    cells = pd.read_parquet(finished.folder / "results/reports/test/tables/table1.parquet")
    ours = cells[cells["source"] == "ours"]
    assert {("standard", "full"), ("mlp", "full"), ("rndembqk", "full"), ("rndembqk", "skip")} <= set(
        zip(ours["variant"], ours["mode"], strict=True)
    )


def test_a_second_launch_does_nothing_and_says_so(finished: Project) -> None:
    started = time.monotonic()
    done = finished.snakemake()
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr
    assert time.monotonic() - started < 15
    assert finished.planned() == {}


def test_a_deleted_figure_is_redrawn_alone(finished_copy: Project) -> None:
    figure = finished_copy.folder / "results/reports/test/figures/figure5.png"
    before = figure.read_bytes()
    figure.unlink()
    # The page of origins names each figure's sum and is written again behind it.
    assert finished_copy.planned() == {"figure5": 1, "provenance": 1}
    assert finished_copy.snakemake("--quiet", "rules").returncode == 0
    assert figure.read_bytes() == before


def test_a_changed_learning_rate_retrains_into_new_folders_and_back_again_finds_the_old(finished_copy: Project) -> None:
    finished_copy.edit("config/test.yaml", "peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
    plan = finished_copy.planned()
    assert (plan["pretrain"], plan["evaluate"], plan["spec"]) == (3, 3, 3)
    assert not {"tokenize", "train_tokenizer", "mirror_text"} & set(plan)
    finished_copy.edit("config/test.yaml", "peak_learning_rate: 5e-3", "peak_learning_rate: 4e-3")
    assert finished_copy.planned() == {}


def test_how_a_run_is_computed_is_no_part_of_what_it_is(finished_copy: Project) -> None:
    finished_copy.edit(
        "config/test.yaml",
        "default: {processes: 1, threads: 1, device: cpu}",
        "default: {processes: 2, threads: 2, device: auto, micro_batch_size: 1, compile: true, evaluation_batch_size: 3, "
        "checkpoint_minutes: 7, memory_mb: 9000, runtime_minutes: 77, sharding: full, nodes: 2, device_memory_gb: 2, "
        "device_tflops: 1}",
    )
    assert finished_copy.planned() == {}


def test_figures_alone_are_redrawn_and_name_what_is_missing(finished_copy: Project) -> None:
    shutil.rmtree(finished_copy.runs("tiny-mlp*")[0])
    figure = finished_copy.folder / "results/reports/test/figures/figure5.png"
    before = figure.read_bytes()
    figure.unlink()
    plan = finished_copy.planned("--profile", "profiles/figures")
    assert "figure5" in plan and not {"pretrain", "evaluate", "analyse", "spec"} & set(plan)
    done = finished_copy.snakemake("--profile", "profiles/figures", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure.read_bytes() != before
    gaps = pd.read_parquet(finished_copy.folder / "results/reports/test/tables/gaps.parquet")
    assert gaps["run"].str.startswith("tiny-mlp").any()
    assert finished_copy.planned()["pretrain"] == 1, "the full plan still lists what is missing"


def test_a_training_killed_under_snakemake_goes_on_from_its_checkpoint(
    finished_copy: Project, finished: Project
) -> None:
    config = finished_copy.folder / "config/test.yaml"
    config.write_text(config.read_text().replace("steps: 12", "steps: 400").replace(
        "default: {", "default: {checkpoint_minutes: 0.001, "))  # fmt: skip
    target = ("--until", "pretrain", "--cores", "1", "--quiet", "rules")
    process = subprocess.Popen(
        finished_copy.command(*target), cwd=finished_copy.folder, env=finished_copy.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    saved: list[Path] = []
    while not saved and time.monotonic() < deadline:
        unfinished = [run for run in finished_copy.runs() if not (run / "done.json").exists()]
        saved = [path for run in unfinished for path in run.glob("checkpoints/step-*")]
        time.sleep(0.05)
    assert saved, "no checkpoint appeared"
    trainer = subprocess.run(
        ["pgrep", "-g", str(process.pid), "-f", "deconattn pretrain"], capture_output=True, text=True
    )
    for pid in trainer.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    run = saved[0].parent.parent
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / "done.json").exists() and list(run.glob("checkpoints/step-*"))
    finished_copy.snakemake("--unlock")
    done = finished_copy.snakemake(*target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed after step" in (run / "log/pretrain.log").read_text()
    assert pq.read_table(run / "train.parquet")["step"].to_pylist() == list(range(1, 401))


def test_a_wrong_config_runs_nothing_and_prints_no_traceback(finished_copy: Project) -> None:
    finished_copy.edit("config/test.yaml", "variants: [standard, mlp]", "variants: [standard, mpl]")
    finished_copy.edit("config/test.yaml", "steps: 12", "setps: 12")
    done = finished_copy.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("config/test.yaml:")]
    assert (
        len(lines) >= 2
        and any("'mpl'" in line and "mlp" in line for line in lines)
        and any("setps" in line for line in lines)
    )


def test_the_papers_grid_is_planned_quickly_and_without_torch(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    probe = tmp_path / "sitecustomize.py"
    probe.write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: 'torch' in sys.modules and print('TORCH WAS IMPORTED', file=sys.stderr))\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        project.command("-n", "--quiet", "reason", config="config/paper.yaml"), cwd=tmp_path,
        env={**project.environment(), "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - started
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "TORCH WAS IMPORTED" not in said
    assert "pretrain" in said and " 65\n" in said
    assert seconds < 10, f"the dry run took {seconds:.1f} s"
