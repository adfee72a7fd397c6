"""The pretrain stage: spec.json and tokens in; model/, train.parquet and done.json out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from deconattn.data.order import TokenTable, heldout_rows, side_tokens
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json
from deconattn.model import LanguageModel, ModelConfig, initialise, parameter_count
from deconattn.training import checkpoint
from deconattn.training.distributed import process_group
from deconattn.training.loop import Diverged, Trainer
from deconattn.training.schema import TRAIN
from deconattn.training.stops import Stopped, StopWatch

SAVE_MARGIN_SECONDS = 120.0  # kept free before the deadline for the last checkpoint


class Reporter(Protocol):
    """Who is told how far a training is.

    `deconattn.training.progress` is not imported here: it can change no result, and so is no part of a run's code.
    """

    def start(self, done: int) -> None:
        """The training begins, or goes on, after `done` updates."""

    def step(self, done: int, loss: float, tokens_per_second: float) -> None:
        """`done` updates are made."""

    def say(self, text: str) -> None:
        """A line that is worth reading by itself."""

    def close(self) -> None:
        """The training is over."""


def build(spec: dict[str, Any], vocab_size: int, side_text: Path | None = None) -> LanguageModel:
    """The model of a spec, initialised from its seed, with the fixed text of `fixedseqqk` filled in.

    Raises:
        UserError: the text is missing, or shorter than the side stream.
    """
    config = ModelConfig.from_dict({**spec["model"], "vocab_size": vocab_size})
    model = LanguageModel(config)
    initialise(model, spec["seed"])
    if "side_input_ids" in dict(model.model.named_buffers()):
        if side_text is None:
            raise UserError(f"{spec['run']}: its variant needs the fixed text of its side stream (--side-text)")
        ids = side_tokens(side_text)
        if len(ids) < config.max_position_embeddings:
            raise UserError(f"{side_text}: {len(ids)} tokens, the side stream needs {config.max_position_embeddings}")
        model.model.side_input_ids.copy_(torch.from_numpy(ids[: config.max_position_embeddings]))
    return model


def padded_vocabulary(size: int, multiple: int) -> int:
    """Rows of the embedding: the tokenizer's vocabulary, rounded up (50,277 → 50,304 at 128)."""
    return -(-size // multiple) * multiple


def pretrain(
    run_folder: Path,
    tokens: Path,
    *,
    side_text: Path | None = None,
    micro_batch_size: int | None = None,
    threads: int = 1,
    device: str = "auto",
    compiled: bool = False,
    checkpoint_minutes: float = 15.0,
    deadline_minutes: float | None = None,
    tokenizer: Path | None = None,
    make_progress: Callable[[str, int, Path], Reporter] | None = None,
) -> None:
    """Train the run of `run_folder/spec.json` on the token table `tokens`; a finished run returns at once.

    Raises:
        Stopped: asked to stop before the end; the same call goes on from the checkpoint.
        UserError: input that does not fit, or a loss that is not finite with `on_divergence: stop`.
    """
    spec = read_json(run_folder / "spec.json")
    table = TokenTable(tokens)
    manifest_sha256 = sha256_file(tokens / "manifest.json")
    # Weights belong to the spec and to the very tokens that they have seen.
    key = f"{spec['hash']}-{manifest_sha256[:16]}"
    if (run_folder / "done.json").is_file() and read_json(run_folder / "done.json")["key"] == key:
        return
    if spec["tokens"].get("manifest_sha256") not in (None, manifest_sha256):
        raise UserError(f"{tokens / 'manifest.json'}: not the token table that {run_folder / 'spec.json'} was made for")
    torch.set_num_threads(threads)
    stops = StopWatch(deadline_minutes, SAVE_MARGIN_SECONDS if (deadline_minutes or 0) > 5 else 5.0)
    training = spec["training"]
    vocab_size = padded_vocabulary(table.vocab_size, spec["model"].get("pad_vocabulary_to", 1))
    model = build(spec, vocab_size, side_text)
    with process_group(device) as process:
        log = run_folder / "log" / "pretrain.log"
        progress = make_progress(spec["run"], training["steps"], log) if make_progress and process.leads else None
        say = progress.say if progress else lambda text: None
        trainer = Trainer(
            model=model,
            training=training,
            seed=spec["seed"],
            spec_hash=key,
            table=table,
            heldout=heldout_rows(tokens, table.context_length, training["heldout_documents"]),
            folder=run_folder,
            process=process,
            stops=stops,
            micro_batch_size=micro_batch_size,
            checkpoint_seconds=checkpoint_minutes * 60,
            compiled=compiled,
            say=say,
            on_start=progress.start if progress else lambda done: None,
            on_step=progress.step if progress else lambda done, loss, speed: None,
        )
        status, detail = "finished", None
        try:
            trainer.run()
        except Diverged as error:
            if training["on_divergence"] == "stop":
                raise UserError(
                    f"{spec['run']}: {error}; the last good state is in {run_folder / 'checkpoints'}"
                ) from None
            status, detail = "diverged", str(error)
            say(f"{error}; recorded as diverged")
        finally:
            if progress:
                progress.close()
        if process.leads:
            _write_model(run_folder / "model", model, table.end_of_text_id, tokenizer)
            _write_results(run_folder, spec, key, model, trainer.rows, status, detail)


def _write_model(folder: Path, model: LanguageModel, end_of_text: int, tokenizer: Path | None) -> None:
    """The folder that transformers loads: weights, configuration and, when given, the tokenizer."""
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "model.safetensors") as temporary:
        checkpoint.save_model(model, temporary)
    stated = {"architectures": ["DeconAttnForCausalLM"], "model_type": "deconattn", "dtype": "float32"}
    write_json(
        folder / "config.json", {**model.config.to_dict(), **stated, "bos_token_id": None, "eos_token_id": end_of_text}
    )
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            with atomic_write(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)


def _write_results(
    run_folder: Path,
    spec: dict[str, Any],
    key: str,
    model: LanguageModel,
    rows: list[dict[str, Any]],
    status: str,
    detail: str | None,
) -> None:
    with atomic_write(run_folder / "train.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=TRAIN), temporary)
    write_json(
        run_folder / "done.json",
        {
            "run": spec["run"],
            "hash": spec["hash"],
            "key": key,
            "status": status,
            "detail": detail,
            "steps": len(rows),
            "parameters": parameter_count(model.config),
            "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")},
        },
    )
    checkpoint.keep_last(run_folder / "checkpoints", 1)


__all__ = ["Stopped", "build", "padded_vocabulary", "pretrain"]
