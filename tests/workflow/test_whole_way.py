"""The real Snakefile on a small grid: what each stage leaves, what is typed beside a config, odd paths, Snakemake's linter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.project import CONFIG, Project

pytestmark = pytest.mark.xdist_group("workflow")


def test_every_stage_leaves_what_it_should(finished: Project) -> None:
    runs = finished.runs()
    assert [run.name.rsplit("-", 1)[0] for run in runs] == [
        "tiny-mlp-uniform-s0", "tiny-rndembqk-even-s0", "tiny-standard-uniform-s0"]  # fmt: skip
    for run in runs:
        names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        assert {"spec.json", "record.json", "done", "model/config.json", "model/model.safetensors"} <= names
        (evaluation,) = run.glob("evaluation-*")
        names = {path.name for path in evaluation.iterdir()}
        assert {"evaluation.parquet", "samples.parquet", "record.json", "done"} <= names
        assert len(pd.read_parquet(run / "train.parquet")) == 12
        modes = {"full", "skip", "skip_mixer"} if "even" in run.name else {"full"}
        assert set(pd.read_parquet(evaluation / "evaluation.parquet")["mode"]) == modes
    report = finished.folder / "results/reports/test"
    for name in ("table1.html", "table1.tex", "table1.csv", "table_findings.html", "table_findings.tex"):
        assert (report / "tables" / name).stat().st_size > 500
    for name in ("figure4", "figure5"):
        for kind in ("svg", "pdf", "png", "json"):
            assert (report / "figures" / f"{name}.{kind}").stat().st_size > 100
    found = pd.read_parquet(report / "tables/table_findings.parquet").set_index("claim")
    mixing = found.loc["mixing"]
    assert [*mixing[["left", "text", "over", "seeds"]]] == ["mlp uniform", "heldout", "documents", 1]
    assert np.isfinite(mixing["value"]) and set(found["of_variant"]) == {"cannot be told"}
    cells = pd.read_parquet(report / "tables/table1.parquet")
    ours = cells[cells["source"] == "ours"]
    assert {("standard", "full"), ("mlp", "full"), ("rndembqk", "skip")} <= {
        *zip(ours["variant"], ours["mode"], strict=True)
    }


def test_typed_settings_are_those_of_a_file_and_leave_their_neighbours(finished: Project) -> None:
    same = ("training={steps: 12, betas: [0.9, 0.9999], eps: 1e-8}", "side_text=null", "evaluation={tasks: [copa, rte, heldout]}",
            "resources={default: {compile: false, processes: 1}}", 'name="test"')  # fmt: skip
    assert finished.planned("--config", *same) == {}
    assert finished.planned("--config", "training={steps: 6}")["pretrain"] == 3
    wrong = finished.snakemake("-n", "--config", "training={steps: six}")
    assert wrong.returncode != 0
    assert "command line: training.steps: 'six' is not a whole number" in wrong.stdout + wrong.stderr


def test_the_linter_remarks_only_on_what_contributing_explains(finished: Project) -> None:
    explained = ("No log directive", "Specify a conda environment", "Shell command directly uses variable deconattn",
                 "Environment variable PYTHONPATH")  # fmt: skip
    done = finished.snakemake("--lint")
    remarks = set(re.findall(r"^    \* (.*)$", done.stdout + done.stderr, re.MULTILINE))
    assert remarks and all(remark.startswith(explained) for remark in remarks), remarks


@pytest.mark.slow
def test_no_more_than_four_downloads_run_at_once_and_braces_in_a_path_are_no_wildcards(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    odd = "tests/data/odd {part} {} mirror"
    shutil.move(tmp_path / "tests/data/mirror", tmp_path / odd)
    project.edit_all(CONFIG, "tests/data/mirror", f"'{odd}'")
    project.edit(CONFIG, "parts: 2", "parts: 6")
    done = project.snakemake("--cores", "8", "mirror")
    assert done.returncode == 0, done.stdout + done.stderr
    running, most = 0, 0
    for step in re.findall(r"^\[ *\d+/\d+\] (started |finished) mirror_", done.stdout + done.stderr, re.MULTILINE):
        running += 1 if step == "started " else -1
        most = max(most, running)
    assert most == 4 and running == 0, done.stdout + done.stderr
    for file in ("corpus-*/manifest.json", "copa-*/copa.parquet", "rte-*/rte.parquet"):
        assert len(list(tmp_path.glob(f"resources/mirror/{file}"))) == 1, file


@pytest.mark.slow
def test_the_check_of_a_cluster_has_every_kind_of_job_and_shares_a_training(tmp_path: Path) -> None:
    """config/check.yaml as it is planned; of its trainings two at a nano size on a CPU, one in two processes that share it."""
    project, config = Project.copy(tmp_path), "config/check.yaml"
    rules = "".join(path.read_text() for path in sorted((tmp_path / "workflow/rules").glob("*.smk")))
    left_out = set(re.findall(r"^rule (\w+):", rules, re.M)) - project.planned(config=config).keys()
    assert left_out <= {"fetch", "mirror", "mirror_source"}, "its text lies in the checkout"
    shape = "hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 64"
    small = [
        f"models={{check: {{{shape}, pad_vocabulary_to: 64}}, check-pair: {{{shape}, pad_vocabulary_to: 64}}}}",
        "tokens={context_length: 64}", "training={steps: 6, heldout_every: 3, precision: float32}", "costs={lengths: [64]}",
        "resources={default: {gpus: 0, device: cpu, compile: false, threads: 1}, check-pair: {gpus: 0}}",
    ]  # fmt: skip
    status = json.loads(project.deconattn("status", config, "--json", "--config", *small).stdout)
    folders = [Path(run["folder"]) for run in status["runs"]]
    assert len(folders) == 9
    wanted = [next(path for path in folders if path.name.startswith(name)) for name in ("check-mlp", "check-pair-rnd")]
    targets = [f"{run}/done" for run in wanted]
    done = project.snakemake("--cores", "2", "--config", *small, "--", *targets, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads((tmp_path / run / "record.json").read_text())["processes"] for run in wanted] == [1, 2]
