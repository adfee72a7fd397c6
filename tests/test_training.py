"""Training: the schedule, exact resume after any interruption, several processes, divergence, golden numbers of one step."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from deconattn.data.documents import write_documents
from deconattn.data.tokenizer import train_tokenizer
from deconattn.data.tokens import finish_tokens, tokenize_part
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.training.schedule import learning_rate
from tests.conftest import ROOT

CONTEXT = 32
STEPS = 12


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small token table: 60 documents of made words, two parts."""
    folder = tmp_path_factory.mktemp("tokens")
    draw = random.Random(0)
    words = ["".join(draw.choice("abcdeiklmnorstu") for _ in range(draw.randint(2, 7))) for _ in range(150)]
    for part in range(2):
        texts = (" ".join(draw.choices(words, k=150)) for _ in range(30))
        write_documents(((text, {}) for text in texts), folder / f"part-{part:04d}.parquet", None)
    parts = sorted(folder.glob("part-*.parquet"))
    train_tokenizer(parts, 320, folder / "tokenizer")
    for part in parts:
        tokenize_part(part, folder / "tokenizer", CONTEXT, folder / "tokens", heldout_fraction=0.1)
    finish_tokens(folder / "tokens", 2, folder / "tokenizer")
    return folder / "tokens"


def make_run(folder: Path, **training: Any) -> Path:
    """A run folder with the spec of a small hybrid."""
    folder.mkdir(parents=True)
    spec = {
        "run": folder.name,
        "hash": "0123abcd",
        "seed": 5,
        "code": Identity.training_code(Run("tiny", "rndembqk", "even", 5)),
        "tokens": {"id": "test"},
        "model": {
            "name": "tiny", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT, "variant": "rndembqk", "layout": "even", "pad_vocabulary_to": 64,
        },
        "training": {
            "steps": STEPS, "sequences_per_step": 4, "peak_learning_rate": 1e-2, "warmup_steps": 3, "betas": [0.9, 0.9999],
            "eps": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0, "precision": "float32", "heldout_every": 5,
            "heldout_documents": None, "on_divergence": "stop", **training,
        },
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def command(run: Path, tokens: Path, *options: str, processes: int = 1) -> list[str]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*launch, "-m", "deconattn", "pretrain", str(run), str(tokens), "--device", "cpu", *options]


def train(run: Path, tokens: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(run, tokens, *options, processes=processes), cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def curve(run: Path) -> list[dict[str, Any]]:
    """train.parquet without what a clock wrote."""
    rows = pq.read_table(run / "train.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key not in ("seconds", "tokens_per_second")} for row in rows]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Path:
    """A run that nothing interrupted."""
    run = make_run(tmp_path_factory.mktemp("runs") / "undisturbed")
    done = train(run, tokens)
    assert done.returncode == 0, done.stderr
    return run


def test_the_schedule_is_warm_up_and_half_a_cosine() -> None:
    rates = [learning_rate(step, peak=4e-4, warmup_steps=2000, steps=28_610) for step in range(28_610)]
    assert rates[0] == pytest.approx(4e-4 / 2000) and rates[1999] == pytest.approx(4e-4)
    assert rates[2000 + (28_610 - 2000) // 2] == pytest.approx(2e-4)
    assert 0 < rates[-1] < 1e-9 and max(rates) == pytest.approx(4e-4)


def test_the_curve_is_whole_and_falls(undisturbed: Path) -> None:
    rows = pq.read_table(undisturbed / "train.parquet").to_pylist()
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["tokens"] for row in rows] == [4 * CONTEXT * step for step in range(1, STEPS + 1)]
    assert [row["step"] for row in rows if row["heldout_loss"] is not None] == [5, 10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"] == pytest.approx(math.log(320), abs=0.1)
    assert json.loads((undisturbed / "done.json").read_text())["status"] == "finished"


def test_a_finished_run_returns_at_once_and_writes_nothing(undisturbed: Path, tokens: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert train(undisturbed, tokens).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


def test_results_discarded_after_the_end_are_written_again(undisturbed: Path, tokens: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, copy)
    (copy / "done.json").unlink(), (copy / "train.parquet").unlink(), shutil.rmtree(copy / "model")
    assert train(copy, tokens).returncode == 0
    assert (copy / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()
    assert curve(copy) == curve(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_interrupted_and_resumed_it_is_bit_identical(
    number: signal.Signals, undisturbed: Path, tokens: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    with subprocess.Popen(
        command(run, tokens, "--checkpoint-minutes", "0"), cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not list(run.glob("checkpoints/step-*[3-9]")):
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 75)
    assert not (run / "done.json").exists()
    saved = sorted(path.name for path in run.glob("checkpoints/step-*"))
    assert 1 <= len(saved) <= 3  # the last two, and the third when it dies between saving and deleting
    done = train(run, tokens)
    assert done.returncode == 0 and "resumed after step" in done.stderr
    assert (run / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()
    assert curve(run) == curve(undisturbed)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    undisturbed: Path, tokens: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    with subprocess.Popen(
        command(run, tokens, "--checkpoint-minutes", "0"), cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and len(list(run.glob("checkpoints/step-*"))) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    newest = max(run.glob("checkpoints/step-*"))
    damaged = bytearray((newest / "optimizer.safetensors").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (newest / "optimizer.safetensors").write_bytes(damaged)
    done = train(run, tokens)
    assert done.returncode == 0 and f"{newest.name}: optimizer.safetensors is damaged" in done.stderr
    assert (run / "model/model.safetensors").read_bytes() == (undisturbed / "model/model.safetensors").read_bytes()


def test_two_processes_and_micro_batches_train_the_same(undisturbed: Path, tokens: Path, tmp_path: Path) -> None:
    for name, options, processes in (
        ("two", (), 2),
        ("micro", ("--micro-batch-size", "1"), 1),
        ("both", ("--micro-batch-size", "1"), 2),
    ):
        run = make_run(tmp_path / name)
        done = train(run, tokens, *options, processes=processes)
        assert done.returncode == 0, done.stderr
        for ours, theirs in zip(curve(run), curve(undisturbed), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
            if theirs["heldout_loss"] is not None:
                assert ours["heldout_loss"] == pytest.approx(theirs["heldout_loss"], abs=1e-6)


def test_a_deadline_stops_in_time_and_saves(tokens: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "deadline", steps=100_000, warmup_steps=1)
    done = train(run, tokens, "--deadline-minutes", "0.25")
    assert done.returncode == 75 and "stopped by deadline" in done.stderr
    assert list(run.glob("checkpoints/step-*"))


def test_a_loss_that_is_not_finite_stops_before_the_update(tokens: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "stop", peak_learning_rate=1e30)
    done = train(run, tokens)
    assert done.returncode == 2 and "not finite at step" in done.stderr and "Traceback" not in done.stderr
    assert not (run / "done.json").exists()
    recorded = make_run(tmp_path / "record", peak_learning_rate=1e30, on_divergence="record")
    assert train(recorded, tokens).returncode == 0
    assert json.loads((recorded / "done.json").read_text())["status"] == "diverged"
    assert all(math.isfinite(row["loss"]) for row in curve(recorded))


def test_bf16_autocast_trains_close_to_float32(undisturbed: Path, tokens: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "bf16", precision="bf16")
    assert train(run, tokens).returncode == 0
    assert curve(run) != curve(undisturbed)
    assert curve(run)[-1]["loss"] == pytest.approx(curve(undisturbed)[-1]["loss"], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in load_file(run / "model/model.safetensors").values())


def test_code_edited_since_the_spec_was_written_is_not_run(tokens: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "edited")
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**spec, "code": "0" * 16}))
    done = train(run, tokens)
    assert done.returncode == 2 and "written for code 0000000000000000" in done.stderr
    assert not (run / "checkpoints").exists()


def test_the_fixed_text_is_part_of_the_model(tokens: Path, tmp_path: Path) -> None:
    from deconattn.data.sidetext import write_side_text

    write_side_text(tokens / "manifest.json", tokens.parent / "tokenizer", CONTEXT, tmp_path / "side.parquet")
    run = make_run(tmp_path / "fixed")
    spec = json.loads((run / "spec.json").read_text())
    spec["model"]["variant"] = "fixedseqqk"
    spec["code"] = Identity.training_code(Run("tiny", "fixedseqqk", "even", 5))
    (run / "spec.json").write_text(json.dumps(spec))
    without = train(run, tokens)
    assert without.returncode == 2 and "--side-text" in without.stderr
    assert train(run, tokens, "--side-text", str(tmp_path / "side.parquet")).returncode == 0
    saved = load_file(run / "model/model.safetensors")["model.side_input_ids"]
    assert saved.tolist() == pq.read_table(tokens / "part-0000.parquet")["tokens"][0].as_py()


def test_wrong_input_is_one_line(tokens: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x")
    for arguments, expected in (
        ((tmp_path / "nowhere", tokens), "nowhere/spec.json: no such file"),
        ((run, tmp_path / "nowhere"), "nowhere/manifest.json"),
    ):
        done = train(*arguments)
        assert done.returncode == 2 and expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
