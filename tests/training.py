"""Small trainings that tests start, disturb and compare, as real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deconattn.data.documents import write_documents
from deconattn.data.tokenizer import train_tokenizer
from deconattn.data.tokens import finish_tokens, tokenize_part
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.files import sha256_file
from deconattn.training.schema import MEASURED
from tests.project import ROOT

CONTEXT = 32
STEPS = 60


def make_tokens(folder: Path) -> Path:
    """A small token table: 60 documents of made words, two parts; returns its folder."""
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
            "eps": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0, "precision": "float32", "heldout_every": 25,
            "heldout_documents": None, "on_divergence": "stop", **training,
        },
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def longer_run(folder: Path) -> Path:
    """A run folder for a training of some ten seconds."""
    return make_run(folder, steps=1200, heldout_every=100)


def command(run: Path, tokens: Path, *options: str, processes: int = 1) -> list[str]:
    """A call of the trainer, through torchrun for several processes."""
    launch = ["deconattn"] if processes == 1 else ["deconattn.training.launch", str(processes)]
    return [sys.executable, "-m", *launch, "pretrain", str(run), str(tokens), "--device", "cpu", *options]


def train(run: Path, tokens: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Train to the end, or to where it ends."""
    return subprocess.run(
        command(run, tokens, *options, processes=processes), cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def curve(run: Path) -> list[dict[str, Any]]:
    """train.parquet without what was measured."""
    return pq.read_table(run / "train.parquet").drop_columns(list(MEASURED)).to_pylist()


def state(run: Path) -> dict[str, Any]:
    """What two runs of one spec must share to the bit: weights, optimiser with RNG, and the curve."""
    (last,) = run.glob("checkpoints/step-*")
    return {
        "weights": sha256_file(run / "model" / "model.safetensors"),
        "optimizer": sha256_file(last / "optimizer.safetensors"),
        "curve": curve(run),
    }


def wait_for(what: Callable[[], object], process: subprocess.Popen[Any] | None = None, seconds: float = 120) -> None:
    """Wait until `what()` holds, or `process` has ended; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not what() and (process is None or process.poll() is None):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def disturb(
    run: Path, tokens: Path, number: signal.Signals, when: Callable[[], object], *options: str, processes: int = 1
) -> tuple[int, str]:
    """Start a training, send it a signal once `when()` holds; returns its exit code and what it said."""
    with subprocess.Popen(
        command(run, tokens, *options, processes=processes), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for(when, process)
            process.send_signal(number)
            said = process.communicate(timeout=120)[1]
        except BaseException:
            process.kill()
            raise
    return process.returncode, said
