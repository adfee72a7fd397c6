"""Training: the schedule, the curve, what is measured, divergence, and input that does not fit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from deconattn.cli import main
from deconattn.costs import training_flops
from deconattn.errors import UserError
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.model import ModelConfig
from deconattn.training.inputs import check_inputs
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


def changed(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """A spec with other values: `training__steps=-5`."""

    def change(spec: dict[str, Any]) -> dict[str, Any]:
        for keys, value in changes.items():
            section, _, key = keys.rpartition("__")
            (spec[section] if section else spec)[key] = value
        return spec

    return change


def without(section: str, key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda spec: {**spec, section: {name: value for name, value in spec[section].items() if name != key}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda _: {}, "run: missing: Name of the run. (and 6 more)", id="{}"),
        pytest.param(lambda _: [], "holds '[]'; must be an object with run, hash, code, seed", id="[]"),
        pytest.param(lambda _: None, "holds 'None'; must be an object with run, hash", id="null"),
        pytest.param(changed(model=[]), "model: [] is not a mapping", id="section"),
        pytest.param(
            changed(training__steps=-5), "training.steps: -5 is not allowed; must be greater than 0", id="range"
        ),
        pytest.param(changed(training__steps=None), "training.steps: null is not a whole number", id="no steps"),
        pytest.param(changed(seed="5"), "seed: '5' is not a whole number", id="type"),
        pytest.param(
            changed(model__layout="evem"), "model.layout: 'evem' is not a layout; did you mean 'even'?", id="name"
        ),
        pytest.param(changed(model__variant="nope"), "model.variant: 'nope' is not a variant", id="variant"),
        pytest.param(without("model", "name"), "model.name: missing: Name of the model.", id="key"),
        pytest.param(without("training", "gradient_clip"), "training.gradient_clip: missing", id="default"),
    ],
)
def test_a_spec_of_the_wrong_shape_is_one_line(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run") / "spec.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError) as caught:
        check_inputs(path.parent, None, None)
    assert str(caught.value).startswith(f"{path}: {said}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "key: missing: What the results are of"),
        ("[]", "holds '[]'; must be an object with key"),
        ('{"key": 7}', "key: 7 is not text"),
        ("\x00", "1: not valid JSON"),
    ],
)
def test_a_done_json_of_the_wrong_shape_is_one_line(content: str, said: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "done.json").write_text(content)
    with pytest.raises(UserError) as caught:
        check_inputs(run, None, None)
    assert str(caught.value).removeprefix(f"{run / 'done.json'}:").strip().startswith(said)


def test_what_is_read_at_the_end_is_looked_for_at_the_start(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    done = train(run, token_table, "--tokenizer", str(tmp_path / "nope"))
    assert done.returncode == 2 and not (run / "checkpoints").exists()
    assert done.stderr.startswith(f"{tmp_path / 'nope'}: --tokenizer must be a folder with tokenizer.json")
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(UserError, match=r"side.parquet: no such file \(--side-text\)"):
        check_inputs(run, token_table.parent / "tokenizer", tmp_path / "side.parquet")
    check_inputs(run, token_table.parent / "tokenizer", None)
    (run / "done.json").write_text('{"key": "0123abcd-0123456789abcdef"}')
    check_inputs(run, tmp_path / "nope", None)  # finished: what it was made from may be deleted


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--threads", "0", "a whole number of at least 1"),
        ("--micro-batch-size", "-1", "a whole number of at least 1"),
        ("--checkpoint-minutes", "nan", "a finite number of at least 0"),
        ("--checkpoint-minutes", "-1", "a finite number of at least 0"),
        ("--deadline-minutes", "-5", "a finite number of at least 0"),
        ("--deadline-minutes", "inf", "a finite number of at least 0"),
        ("--device-memory-gb", "0", "a finite number above 0"),
        ("--device-tflops", "x", "a finite number above 0"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(
    flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "run", "tokens", f"{flag}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {flag}: {value!r} is not {allowed} " in line


def test_wrong_input_is_one_line(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    for arguments, expected in (
        ((tmp_path / "nowhere", token_table), "nowhere/spec.json: no such file"),
        ((run, tmp_path / "nowhere"), "nowhere/manifest.json"),
    ):
        done = train(*arguments)
        assert done.returncode == 2 and expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
