"""Training: the schedule, the curve, what is measured, divergence, and input that does not fit."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from deconattn.cli import main
from deconattn.config import ModelConfig
from deconattn.costs import training_flops
from deconattn.data.tokens import write_side_text
from deconattn.errors import UserError
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.code import code_of
from deconattn.peaks import peak_of
from deconattn.status import status_of
from deconattn.training.inputs import check_inputs
from deconattn.training.job import delete_checkpoints
from deconattn.training.optimizer import learning_rate
from tests import forks, training
from tests.training import CONTEXT, PATIENCE, STEPS, WORK, checkpoints, curve, make_run, state, train


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
    assert json.loads((undisturbed / "record.json").read_text())["status"] == "finished"


def test_a_finished_run_writes_nothing_and_discarded_results_are_written_again(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert train(run, token_table).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    (run / "record.json").unlink(), (run / "train.parquet").unlink(), shutil.rmtree(run / "model")
    assert train(run, token_table).returncode == 0
    assert state(run) == state(undisturbed)


@pytest.fixture(scope="module")
def bf16(token_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in bf16 on a device of which it is known what it can do."""
    run = make_run(tmp_path_factory.mktemp("bf16") / "bf16", precision="bf16")
    assert train(run, token_table, "--device-tflops", "0.1").returncode == 0
    return run


def test_bf16_autocast_trains_close_to_float32(undisturbed: Path, bf16: Path) -> None:
    assert curve(bf16) != curve(undisturbed)
    assert curve(bf16)[-1]["loss"] == pytest.approx(curve(undisturbed)[-1]["loss"], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in load_file(bf16 / "model/model.safetensors").values())


def test_what_was_measured_stands_beside_the_curve(undisturbed: Path, bf16: Path) -> None:
    config = ModelConfig.from_dict(json.loads((bf16 / "model/config.json").read_text()))
    for row in pq.read_table(bf16 / "train.parquet").to_pylist():
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
    assert not (run / "record.json").exists()
    seen = status_of(run.name, Artefact("pretrain", run, json.loads((run / "spec.json").read_text()), "tiny"))
    assert seen.state == "failed" and seen.note.startswith("the loss is not finite at step 2")
    (last,) = run.glob("checkpoints/step-*")
    assert all(torch.isfinite(tensor).all() for tensor in load_file(last / "model.safetensors").values())

    recorded = make_run(tmp_path / "record", peak_learning_rate=1e30, on_divergence="record")
    assert train(recorded, token_table).returncode == 0
    done_json = json.loads((recorded / "record.json").read_text())
    assert done_json["status"] == "diverged" and "not finite at step 2; the largest score" in done_json["detail"]
    assert [row["step"] for row in curve(recorded)] == [1] and math.isfinite(curve(recorded)[0]["loss"])


def test_code_edited_since_the_spec_was_written_is_not_run(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "edited")
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**spec, "code": "0" * 16}))
    done = train(run, token_table)
    assert done.returncode == 2 and "written for code 0000000000000000" in done.stderr
    assert not (run / "checkpoints").exists()


def test_the_fixed_text_is_part_of_the_model(token_table: Path, tmp_path: Path) -> None:
    write_side_text(token_table / "manifest.json", token_table.parent / "tokenizer", CONTEXT, tmp_path / "side.parquet")
    run = make_run(tmp_path / "fixed", steps=5)
    spec = json.loads((run / "spec.json").read_text())
    spec["model"]["variant"] = "fixedseqqk"
    spec["code"] = code_of({"stage": "pretrain", **spec})
    (run / "spec.json").write_text(json.dumps(spec))
    without = train(run, token_table)
    assert without.returncode == 2 and "--side-text" in without.stderr
    assert train(run, token_table, "--side-text", str(tmp_path / "side.parquet")).returncode == 0
    saved = load_file(run / "model/model.safetensors")["model.side_input_ids"]
    assert saved.tolist() == pq.read_table(token_table / "part-0000.parquet")["tokens"][0].as_py()


def changed(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A spec with another value at `path` (training.steps); `...` takes the key away."""
    *section, key = path.split(".")
    within = spec[section[0]] if section else spec
    if value is ...:
        del within[key]
    else:
        within[key] = value
    return spec


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("spec", {}, " run: missing"),
        ("spec", [], " not a spec (JSON object)"),
        ("spec", ("model", []), " model: [] is not of type dict"),
        ("spec", ("training.steps", -5), " training.steps: -5 is not allowed; must be greater than 0"),
        ("spec", ("training.steps", None), " training.steps: None is not of type int"),
        ("spec", ("seed", "5"), " seed: '5' is not of type int"),
        ("spec", ("model.layout", "evem"), " model.layout: 'evem' is not a layout; did you mean 'even'?"),
        ("spec", ("model.variant", "nope"), " model.variant: 'nope' is not a variant"),
        ("spec", ("model.name", ...), " model.name: missing"),
        ("spec", ("training.gradient_clip", ...), " training.gradient_clip: missing"),
        ("record", {}, " not a record of a training"),
        ("record", {"key": 7}, " not a record of a training"),
        ("record", "\x00", " not a record of a training"),
    ],
    ids=lambda value: "".join(filter(str.isalnum, str(value)))[:20] or "empty",
)
def test_a_file_of_the_wrong_shape_is_one_line(file: str, content: Any, problem: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / f"{file}.json"
    if isinstance(content, tuple):
        content = changed(json.loads(path.read_text()), *content)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as caught:
        check_inputs(run, None, None)
    assert str(caught.value).startswith(f"{path}:{problem}") and "\n" not in str(caught.value)


def test_input_that_is_absent_is_one_line_at_the_start(token_table: Path, tmp_path: Path) -> None:
    run, nowhere = make_run(tmp_path / "run"), tmp_path / "nowhere"
    for arguments, told in (
        ((nowhere, token_table), f"{nowhere}/spec.json: no such file"),
        ((run, nowhere), "nowhere/manifest.json"),
        (
            (run, token_table, "--tokenizer", str(nowhere)),
            f"{nowhere}: --tokenizer must be a folder with tokenizer.json",
        ),
    ):
        done = train(*arguments)
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
        assert not (run / "checkpoints").exists()
    with pytest.raises(UserError, match=r"side.parquet: no such file \(--side-text\)"):
        check_inputs(run, token_table.parent / "tokenizer", tmp_path / "side.parquet")
    check_inputs(run, token_table.parent / "tokenizer", None)
    (run / "record.json").write_text('{"key": "0123abcd-0123456789abcdef", "spec": {}}')
    check_inputs(run, nowhere, None)  # finished: what it was made from may be deleted


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--micro-batch-size", "-1", "a whole number of at least 1"),
        ("--checkpoint-minutes", "nan", "a finite number of at least 0"),
        ("--deadline-minutes", "-5", "a finite number of at least 0"),
        ("--device-tflops", "x", "a finite number above 0"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(
    flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "run", "tokens", f"{flag}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {flag}: {value!r} is not {allowed} " in line


def test_a_device_is_found_by_the_name_that_torch_gives_it() -> None:
    for name, bf16, float32 in (
        ("NVIDIA H100 80GB HBM3", 989.4e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
    ):
        assert peak_of(name) == (bf16, float32)
    assert peak_of("NVIDIA RTX A4000") is None  # contains A40


def test_a_finished_run_keeps_its_checkpoint_only_where_its_weights_are_not_those(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    dropping = [option for option in training.arguments(run, token_table) if option != "--keep-checkpoints"]
    done = forks.run("deconattn", dropping, WORK, dict(os.environ), PATIENCE)
    assert done.returncode == 0 and not checkpoints(run), done.stderr
    weights = Path("model/model.safetensors")
    assert (run / weights).read_bytes() == (undisturbed / weights).read_bytes()

    copy = tmp_path / "copy"
    shutil.copytree(undisturbed, copy)
    whole = (copy / weights).read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], b""):
        (copy / weights).write_bytes(damaged)
        assert "the checkpoints are kept" in str(delete_checkpoints(copy)) and checkpoints(copy)
    (copy / weights).write_bytes(whole)
    assert delete_checkpoints(copy) is None and not checkpoints(copy)
