"""Training: the schedule, the curve, what is measured, divergence, and input that does not fit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from deconattn.costs import training_flops
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.model import ModelConfig
from deconattn.training.schedule import learning_rate
from tests.training import CONTEXT, STEPS, curve, make_run, train


def test_the_schedule_is_warm_up_and_half_a_cosine() -> None:
    rates = [learning_rate(step, peak=4e-4, warmup_steps=2000, steps=28_610) for step in range(28_610)]
    assert rates[0] == pytest.approx(4e-4 / 2000) and rates[1999] == pytest.approx(4e-4)
    assert rates[2000 + (28_610 - 2000) // 2] == pytest.approx(2e-4)
    assert 0 < rates[-1] < 1e-9 and max(rates) == pytest.approx(4e-4)


def test_the_curve_is_whole_and_falls(undisturbed: Path) -> None:
    rows = pq.read_table(undisturbed / "train.parquet").to_pylist()
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["tokens"] for row in rows] == [4 * CONTEXT * step for step in range(1, STEPS + 1)]
    assert [row["step"] for row in rows if row["heldout_loss"] is not None] == [25, 50, 60]
    assert rows[-1]["loss"] < rows[0]["loss"] == pytest.approx(math.log(320), abs=0.1)
    assert json.loads((undisturbed / "done.json").read_text())["status"] == "finished"


def test_a_finished_run_returns_at_once_and_writes_nothing(undisturbed: Path, token_table: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert train(undisturbed, token_table).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


def test_results_discarded_after_the_end_are_written_again(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, copy)
    (copy / "done.json").unlink(), (copy / "train.parquet").unlink(), shutil.rmtree(copy / "model")
    assert train(copy, token_table).returncode == 0
    assert (copy / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()
    assert curve(copy) == curve(undisturbed)


def test_what_was_measured_stands_beside_the_curve(undisturbed: Path, token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "measured")
    assert train(run, token_table, "--device-tflops", "0.1").returncode == 0
    config = ModelConfig.from_dict(json.loads((run / "model/config.json").read_text()))
    for row in pq.read_table(run / "train.parquet").to_pylist():
        seconds = row["tokens"] / row["step"] / row["tokens_per_second"]
        assert row["mfu"] == pytest.approx(training_flops(config, 4, CONTEXT) / seconds / 0.1e12)
        assert 0 <= row["data_seconds"] < seconds
        assert 50e6 < row["peak_memory_bytes"] < 5e9
    # What a CPU could do at most is in no table: nothing is invented.
    assert set(pq.read_table(undisturbed / "train.parquet")["mfu"].to_pylist()) == {None}


def test_a_loss_that_is_not_finite_stops_before_the_update(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "stop", peak_learning_rate=1e30)
    done = train(run, token_table)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert "not finite at step 2; the largest score before the softmax, in layer 1 of 4 (rndembqk), is" in said
    assert not (run / "done.json").exists()
    (last,) = run.glob("checkpoints/step-*")
    assert all(torch.isfinite(tensor).all() for tensor in load_file(last / "model.safetensors").values())

    recorded = make_run(tmp_path / "record", peak_learning_rate=1e30, on_divergence="record")
    assert train(recorded, token_table).returncode == 0
    done_json = json.loads((recorded / "done.json").read_text())
    assert done_json["status"] == "diverged" and "not finite at step 2; the largest score" in done_json["detail"]
    assert [row["step"] for row in curve(recorded)] == [1] and math.isfinite(curve(recorded)[0]["loss"])


def test_bf16_autocast_trains_close_to_float32(undisturbed: Path, token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "bf16", precision="bf16")
    assert train(run, token_table).returncode == 0
    assert curve(run) != curve(undisturbed)
    assert curve(run)[-1]["loss"] == pytest.approx(curve(undisturbed)[-1]["loss"], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in load_file(run / "model/model.safetensors").values())


def test_code_edited_since_the_spec_was_written_is_not_run(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "edited")
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**spec, "code": "0" * 16}))
    done = train(run, token_table)
    assert done.returncode == 2 and "written for code 0000000000000000" in done.stderr
    assert not (run / "checkpoints").exists()


def test_the_fixed_text_is_part_of_the_model(token_table: Path, tmp_path: Path) -> None:
    from deconattn.data.sidetext import write_side_text

    write_side_text(token_table / "manifest.json", token_table.parent / "tokenizer", CONTEXT, tmp_path / "side.parquet")
    run = make_run(tmp_path / "fixed")
    spec = json.loads((run / "spec.json").read_text())
    spec["model"]["variant"] = "fixedseqqk"
    spec["code"] = Identity.training_code(Run("tiny", "fixedseqqk", "even", 5))
    (run / "spec.json").write_text(json.dumps(spec))
    without = train(run, token_table)
    assert without.returncode == 2 and "--side-text" in without.stderr
    assert train(run, token_table, "--side-text", str(tmp_path / "side.parquet")).returncode == 0
    saved = load_file(run / "model/model.safetensors")["model.side_input_ids"]
    assert saved.tolist() == pq.read_table(token_table / "part-0000.parquet")["tokens"][0].as_py()


def test_wrong_input_is_one_line(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    for arguments, expected in (
        ((tmp_path / "nowhere", token_table), "nowhere/spec.json: no such file"),
        ((run, tmp_path / "nowhere"), "nowhere/manifest.json"),
    ):
        done = train(*arguments)
        assert done.returncode == 2 and expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
