"""Small trainings that tests start, disturb and compare, as real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from deconattn.data.documents import write_documents
from deconattn.data.tokenizer import train_tokenizer
from deconattn.data.tokens import finish_tokens, tokenize_part
from deconattn.experiment.code import code_of
from deconattn.files import sha256_file
from deconattn.training.schema import MEASURED
from tests import forks

CONTEXT = 32
STEPS = 60
_work = tempfile.TemporaryDirectory(prefix="deconattn-")
WORK = Path(_work.name)
"""Where trainings are started: what they note in the current folder is no part of the checkout."""
PATIENCE = 600  # seconds until something counts as hanging, on however slow a machine


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
        "code": code_of({"stage": "pretrain", "model": {"variant": "rndembqk", "layout": "even"}}),
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


def longer_run(folder: Path, steps: int = 300) -> Path:
    """A run folder for a training of as many updates as it takes to disturb one."""
    return make_run(folder, steps=steps, heldout_every=100)


def arguments(run: Path, tokens: Path, *options: str) -> list[str]:
    """The trainer's command line."""
    return ["pretrain", str(run), str(tokens), "--device", "cpu", "--keep-checkpoints", *options]


def command(run: Path, tokens: Path, *options: str, processes: int = 1) -> list[str]:
    """A call of the trainer in a new Python, through torchrun for several processes."""
    launch = ["deconattn"] if processes == 1 else ["deconattn.training.launch", str(processes)]
    return [sys.executable, "-m", *launch, *arguments(run, tokens, *options)]


def spawn(run: Path, tokens: Path, *options: str, processes: int = 1, **environment: str) -> subprocess.Popen[str]:
    """Start a training in a new Python: for a test of its start-up, of several processes, or of their command lines."""
    return subprocess.Popen(
        command(run, tokens, *options, processes=processes), cwd=WORK, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start(run: Path, tokens: Path, *options: str) -> forks.Fork:
    """Start a training of one process, for a test that disturbs it."""
    return forks.Fork("deconattn", arguments(run, tokens, *options), WORK, dict(os.environ))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train(run: Path, tokens: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Train to the end, or to where it ends; several processes in the environment that torchrun would give them."""
    place = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        forks.Fork("deconattn", arguments(run, tokens, *options), WORK, {**os.environ, **place, "RANK": str(rank)})
        for rank in range(processes)
    ]
    try:
        done = [forks.finish(rank, PATIENCE) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    # of those that failed the first; one that a signal killed has a code below zero
    code, said = next((each.returncode for each in done if each.returncode), 0), "".join(each.stderr for each in done)
    return subprocess.CompletedProcess(done[0].args, code, done[0].stdout, said)


def log(run: Path) -> str:
    """What the run's attempts have logged."""
    path = run / "log" / "pretrain.log"
    return path.read_text() if path.exists() else ""


def checkpoints(run: Path) -> list[Path]:
    """Its checkpoints, oldest first."""
    return sorted(run.glob("checkpoints/step-*"))


def resumed(run: Path) -> list[int]:
    """After which update each attempt but the first went on."""
    return [int(line.rsplit(" ", 1)[1]) for line in log(run).splitlines() if "resumed after step" in line]


def trainers(run: Path, command: str = "pretrain") -> list[psutil.Process]:
    """Processes that train this run (or do another command's work on a folder), whoever started them and on whatever node; the
    first is rank 0."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "environ"]):
        words, folder = process.info["cmdline"] or [], Path(process.info["cwd"] or "/")
        trains = command in words and "deconattn.training.launch" not in words
        if trains and run in (folder / word for word in words):
            found.append(process)
    return sorted(found, key=lambda process: (process.info["environ"] or {}).get("RANK", ""))


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


def wait_for(
    what: Callable[[], object],
    process: subprocess.Popen[Any] | forks.Fork | None = None,
    why: Callable[[], str] = lambda: "waited in vain",
    pause: float = 0.005,
) -> None:
    """Wait until `what()` holds, or `process` has ended; fail with `why()` when nothing happens."""
    end = time.monotonic() + PATIENCE
    while not what() and (process is None or process.poll() is None):
        assert time.monotonic() < end, why()
        time.sleep(pause)


def disturb(
    run: Path, tokens: Path, number: signal.Signals, when: Callable[[], object], *options: str, processes: int = 1
) -> tuple[int, str]:
    """Start a training, send it a signal once `when()` holds; returns its exit code and what it printed."""
    process = spawn(run, tokens, *options, processes=processes) if processes > 1 else start(run, tokens, *options)
    try:
        wait_for(when, process)
        process.send_signal(number)
        printed = process.communicate(timeout=PATIENCE)[1]
    except BaseException:
        process.kill()
        raise
    assert process.returncode is not None
    return process.returncode, printed
