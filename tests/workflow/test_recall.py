"""Associative recall goes the whole way beside a model of text: sequences, trainings, evaluations, a figure, findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deconattn.data.order import batch
from deconattn.data.table import TokenTable, heldout_rows
from deconattn.files import read_json
from deconattn.load import load_language_model
from deconattn.training.run import build
from tests.configs import recall_beside_text
from tests.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]
SCORED = [7, 9, 11, 13]


def answers(logits: torch.Tensor, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean loss of the answers, and which of them are the most likely tokens."""
    log = torch.log_softmax(logits, -1).numpy()
    wanted = rows[:, SCORED]
    before = log[:, [at - 1 for at in SCORED]]
    return -np.take_along_axis(before, wanted[..., None], 2).mean(), before.argmax(-1) == wanted


def test_a_grid_of_recall(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    (tmp_path / "config/tiny.yaml").write_text(recall_beside_text())
    done = project.snakemake("--quiet", "rules", config="config/tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.planned(config="config/tiny.yaml") == {}
    (tokens,) = (tmp_path / "results/tokens").glob("recall-*")
    held = heldout_rows(tokens, 14)
    pairs = np.array([len(set(row[::2])) for row in held.tolist()])
    (side,) = (tmp_path / "results/sidetexts").glob("*/side.parquet")
    runs = [run for run in project.runs() if run.name.startswith("recall-")]
    assert (len(runs), len(project.runs())) == (2, 3)
    for run in runs:
        spec, curve = read_json(run / "spec.json"), pd.read_parquet(run / "train.parquet")
        with TokenTable(tokens) as table, torch.no_grad():
            rows = batch(table, spec["seed"], 0, 8)
            first = answers(build(spec, 10, side)(torch.from_numpy(rows)), rows)[0]
        assert curve["loss"].iloc[0] == pytest.approx(first, rel=1e-5)
        with torch.no_grad():
            loss, right = answers(load_language_model(run / "model")(torch.from_numpy(held)), held)
        assert curve["heldout_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
        (path,) = run.glob("evaluation-*/evaluation.parquet")
        table = pd.read_parquet(path)
        found = table[(table["metric"] == "acc") & (table["mode"] == "full")].set_index("task")["value"]
        assert dict(found) == pytest.approx({f"recall_{n}": right[pairs == n].mean() for n in (2, 3)})
        samples = pd.read_parquet(path.with_name("samples.parquet")).query("mode == 'full'").set_index("item")["value"]
        assert samples.sort_index().tolist() == pytest.approx(right.mean(axis=1).tolist())
    report = tmp_path / "results/reports/small"
    record = read_json(report / "figures/figure_recall.json")
    assert len(record["runs"]) == 2 and record["gaps"] == []
    findings = pd.read_parquet(report / "tables/table_findings.parquet")
    assert {*findings["model"]} == {"recall", "tiny"} and {*findings.query("model == 'recall'")["metric"]} == {"recall"}
    (path,) = (tmp_path / "results/tables").glob("small-*/baselines.parquet")
    assert {"recall_2", "recall_3", "copa", "rte"} <= {*pd.read_parquet(path)["task"]}
