"""What checkpoints cost: saving, and going on from one, at the size of the paper's 70m.

    python -m benchmarks.checkpoints [--folder DIR]

Trains a 70m model (76.7M parameters, 0.92 GB a checkpoint) by real processes, on short sequences, as the size of a checkpoint
does not depend on them: once to its first checkpoints, stopped, and once more to see how long it takes to go on. DIR is where
the run lies: name a folder of the file system that is asked about.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deconattn.data.documents import write_documents
from deconattn.data.tokenizer import train_tokenizer
from deconattn.data.tokens import finish_tokens, tokenize_part
from deconattn.experiment.code import code_of
from deconattn.experiment.schema import ResourceSettings

CONTEXT = 64
SHAPE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
INTERVAL_SECONDS = 60 * ResourceSettings().checkpoint_minutes


def make(folder: Path) -> tuple[Path, Path]:
    """A run folder with the spec of a standard 70m model, and a small token table."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.parent.glob("deconattn/**/*.py")
    )
    documents = ((text[start : start + 2000], {}) for start in range(0, len(text), 2000))
    write_documents(documents, folder / "part-0000.parquet", None)
    train_tokenizer([folder / "part-0000.parquet"], 512, folder / "tokenizer")
    tokenize_part(folder / "part-0000.parquet", folder / "tokenizer", CONTEXT, folder / "tokens", heldout_fraction=0.05)
    finish_tokens(folder / "tokens", 1, folder / "tokenizer")
    run = folder / "70m"
    run.mkdir()
    training = {
        "steps": 10_000, "sequences_per_step": 2, "peak_learning_rate": 4e-4, "warmup_steps": 2000, "betas": [0.9, 0.9999],
        "eps": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0, "precision": "float32", "heldout_every": 10_000,
        "heldout_documents": 1, "on_divergence": "stop",
    }  # fmt: skip
    # The vocabulary of the paper's tokenizer, by padding: its embeddings are two thirds of the parameters.
    model = {"name": "70m", **SHAPE, "max_position_embeddings": 2048, "variant": "standard", "layout": "uniform"}
    spec = {
        "run": "70m", "hash": "0123abcd", "seed": 0, "code": code_of({"stage": "pretrain", "model": model}),
        "tokens": {"id": "benchmark"}, "model": {**model, "pad_vocabulary_to": 50_304}, "training": training,
    }  # fmt: skip
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return run, folder / "tokens"


def attempt(run: Path, tokens: Path, updates: int, *options: str) -> tuple[float, float]:
    """Train until `updates` more are made and stop; returns seconds from the start to "resumed" and to the first update."""
    command = [sys.executable, "-m", "deconattn", "pretrain", str(run), str(tokens), "--device", "cpu", *options]
    started = time.monotonic()
    resumed = first = float("nan")
    with subprocess.Popen([*command, "--progress", "lines"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            now = time.monotonic() - started
            if "resumed after" in line:
                resumed = now
            if "saved step" in line:
                first = now - float(line.split(" in ")[1].split()[0]) if first != first else first
                updates -= 1
                if updates == 0:
                    process.send_signal(signal.SIGTERM)
    assert process.returncode == 75, process.returncode
    return resumed, first


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the run lies; a temporary folder if not said")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        run, tokens = make(Path(folder))
        attempt(run, tokens, 4, "--checkpoint-minutes", "0")
        size = sum(path.stat().st_size for path in max(run.glob("checkpoints/step-*")).iterdir())
        resumed, first = attempt(run, tokens, 1, "--checkpoint-minutes", "0")
        saves = [
            float(found)
            for found in re.findall(
                r"saved step-\d+ in ([\d.]+) s", (run / "log/pretrain.log").read_text(encoding="utf-8")
            )
        ]
    slowest = max(saves)
    print(f"checkpoint: {size / 1e9:.2f} GB; saved in {min(saves):.1f} to {slowest:.1f} s ({len(saves)} times)")
    print(f"of training time at one in {INTERVAL_SECONDS:.0f} s: {slowest / INTERVAL_SECONDS:.2%} at most")
    print(f"resumed {resumed:.1f} s after the start of the process; {first:.1f} s to the end of the first update")


if __name__ == "__main__":
    main()
