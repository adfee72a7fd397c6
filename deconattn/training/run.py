"""The pretrain stage: spec.json and tokens in; model/, train.parquet and done.json out."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from torch import Tensor

from deconattn.data.order import TokenTable, heldout_rows, side_tokens
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json
from deconattn.model import LanguageModel, ModelConfig, initialise, parameter_count
from deconattn.training import checkpoint
from deconattn.training.distributed import Process, Sharding
from deconattn.training.hooks import Hooks, Stopped
from deconattn.training.loop import Diverged, Trainer
from deconattn.training.schema import TRAIN


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


class RunFiles:
    """The folder of a run: its spec, the tokens that it is to be trained on, and whether it is finished."""

    def __init__(self, folder: Path, tokens: Path) -> None:
        self.folder, self.tokens = folder, tokens
        self.spec: dict[str, Any] = read_json(folder / "spec.json")
        manifest = tokens / "manifest.json"
        manifest_sha256 = sha256_file(manifest) if manifest.is_file() else ""
        # Weights belong to the spec and to the very tokens that they have seen.
        self.key = f"{self.spec['hash']}-{manifest_sha256[:16]}"
        if self.spec["tokens"].get("manifest_sha256") not in (None, manifest_sha256) and manifest_sha256:
            raise UserError(f"{manifest}: not the token table that {folder / 'spec.json'} was made for")

    def is_finished(self) -> bool:
        """Whether the results of this spec and these tokens are there."""
        done = self.folder / "done.json"
        return done.is_file() and read_json(done)["key"] == self.key


def pretrain(
    run: RunFiles,
    process: Process,
    hooks: Hooks,
    *,
    side_text: Path | None = None,
    tokenizer: Path | None = None,
    micro_batch_size: int | None = None,
    sharding: Sharding = "none",
    compiled: bool = False,
    checkpoint_minutes: float = 15.0,
) -> None:
    """Train a run, or go on with it, and write its results.

    Raises:
        Stopped: asked to stop before the end; the same call goes on from the checkpoint.
        UserError: input that does not fit, a loss that is not finite with `on_divergence: stop`, a disk that is full.
    """
    spec, training = run.spec, run.spec["training"]
    torch.manual_seed(spec["seed"])  # nothing draws from it today; the state is saved, and should be the same each time
    with TokenTable(run.tokens) as table:
        vocab_size = padded_vocabulary(table.vocab_size, spec["model"].get("pad_vocabulary_to", 1))
        trainer = Trainer(
            model=build(spec, vocab_size, side_text),
            training=training,
            seed=spec["seed"],
            spec_hash=run.key,
            table=table,
            heldout=heldout_rows(run.tokens, table.context_length, training["heldout_documents"]),
            folder=run.folder,
            process=process,
            sharding=sharding,
            micro_batch_size=micro_batch_size,
            checkpoint_seconds=checkpoint_minutes * 60,
            compiled=compiled,
            hooks=hooks,
        )
        status, detail = "finished", None
        try:
            trainer.run()
        except Diverged as error:
            if training["on_divergence"] == "stop":
                raise UserError(
                    f"{spec['run']}: {error}; the last good state is in {run.folder / 'checkpoints'}"
                ) from None
            status, detail = "diverged", str(error)
            hooks.said(f"{error}; recorded as diverged")
        weights = checkpoint.gather(trainer.model, trainer.optimizer, keep=process.leads)[0]

        def write() -> None:
            hooks.before_write()
            try:
                _write_model(run.folder / "model", trainer.model.config, weights, table.end_of_text_id, tokenizer)
                _write_results(run, trainer, status, detail)
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{run.folder}: the results could not be written ({error}); the checkpoint is whole"
                ) from None

        process.lead(write)


def _write_model(
    folder: Path, config: ModelConfig, weights: dict[str, Tensor], end_of_text: int, tokenizer: Path | None
) -> None:
    """The folder that transformers loads: weights, configuration and, when given, the tokenizer."""
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "model.safetensors") as temporary:
        checkpoint.write_weights(weights, temporary)
    stated = {"architectures": ["DeconAttnForCausalLM"], "model_type": "deconattn", "dtype": "float32"}
    write_json(
        folder / "config.json", {**config.to_dict(), **stated, "bos_token_id": None, "eos_token_id": end_of_text}
    )
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            with atomic_write(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)


def _write_results(run: RunFiles, trainer: Trainer, status: str, detail: str | None) -> None:
    with atomic_write(run.folder / "train.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(trainer.rows, schema=TRAIN), temporary)
    write_json(
        run.folder / "done.json",
        {
            "run": run.spec["run"],
            "hash": run.spec["hash"],
            "key": run.key,
            "status": status,
            "detail": detail,
            "steps": len(trainer.rows),
            "parameters": parameter_count(trainer.model.config),
            "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow", "safetensors")},
        },
    )
    last = checkpoint.at_step(run.folder / "checkpoints", len(trainer.rows))
    checkpoint.keep_last(last, 1, trainer.rejected, trainer.hooks.said)


__all__ = ["RunFiles", "Stopped", "build", "padded_vocabulary", "pretrain"]
