"""The pretrain stage: spec.json and tokens in; model/, train.parquet and facts for the run's record out."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deconattn.config import ModelConfig
from deconattn.data.table import TokenTable, heldout_rows, side_tokens
from deconattn.decoder import LanguageModel, initialise
from deconattn.errors import UserError
from deconattn.files import TOKENIZER_FILES, atomic_write, read_json, sha256_file, write_json
from deconattn.training.checkpoint import weights_of
from deconattn.training.loop import Diverged, Hooks, Trainer
from deconattn.training.parallel import Process, Sharding
from deconattn.training.schema import TRAIN


class RunFiles:
    """The folder of a run: its spec, the tokens that it is to be trained on, and whether it is finished."""

    def __init__(self, folder: Path, tokens: Path) -> None:
        self.folder, self.tokens = folder, tokens
        self.spec: dict[str, Any] = read_json(folder / "spec.json")
        manifest = tokens / "manifest.json"
        self.manifest_sha256 = sha256_file(manifest) if manifest.is_file() else ""
        # Weights belong to the spec and to the very tokens that they have seen. A run that was adopted goes on under its old key.
        self.key = f"{self.spec.get('trained_as', self.spec['hash'])}-{self.manifest_sha256[:16]}"

    def is_finished(self) -> bool:
        """Whether the results of this spec and these tokens are there."""
        record = self.folder / "record.json"
        return record.is_file() and read_json(record)["key"] == self.key


def pretrain(
    run: RunFiles,
    process: Process,
    hooks: Hooks,
    *,
    side_text: Path | None,
    tokenizer: Path | None,
    sharding: Sharding,
    compiled: bool,
    checkpoint_minutes: float,
) -> None:
    """Train a run, or go on with it, and write its results.

    Raises:
        Stopped: the run was stopped before its end; the same call goes on from the checkpoint.
        UserError: input that does not fit, a loss that is not finite with `on_divergence: stop`, a full disk.
    """
    spec, training = run.spec, run.spec["training"]
    torch.manual_seed(spec["seed"])  # nothing draws from it today; the state is saved, and should be the same each time
    with TokenTable(run.tokens) as table:
        trainer = Trainer(
            model=build(spec, table.vocab_size, side_text),
            spec=spec,
            key=run.key,
            table=table,
            heldout=heldout_rows(run.tokens, table.context_length, training["heldout_documents"]),
            folder=run.folder,
            process=process,
            hooks=hooks,
            sharding=sharding,
            compiled=compiled,
            checkpoint_seconds=checkpoint_minutes * 60,
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
            hooks.report(f"{error}; recorded as diverged")
        weights = weights_of(trainer.model, keep=process.leads)

        def write() -> None:
            hooks.before_write()
            try:
                _write_model(run.folder / "model", trainer.model.config, weights, table.end_of_text_id, tokenizer)
                with atomic_write(run.folder / "train.parquet") as temporary:
                    pq.write_table(pa.Table.from_pylist(trainer.rows, schema=TRAIN), temporary)
                hooks.finished(
                    {
                        "key": run.key,
                        "status": status,
                        "detail": detail,
                        "steps": len(trainer.rows),
                        "parameters": sum(each.numel() for each in trainer.model.parameters()),
                        "seconds": trainer.rows[-1]["seconds"] if trainer.rows else 0.0,
                        "tokens_manifest_sha256": run.manifest_sha256,
                    }
                )
                trainer.checkpoints.keep_last(1)
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{run.folder}: the results could not be written ({error}); the checkpoint is whole"
                ) from None

        process.lead(write)


def build(spec: dict[str, Any], vocabulary: int, side_text: Path | None = None) -> LanguageModel:
    """The model of a spec, initialised from its seed; `side_text` holds the fixed text of `fixedseqqk`.

    The embedding has a row for each entry of the vocabulary, rounded up (50,277 → 50,304 at a multiple of 128).

    Raises:
        UserError: the text is missing, or shorter than the side stream.
    """
    multiple = spec["model"].get("pad_vocabulary_to", 1)
    rows = math.ceil(vocabulary / multiple) * multiple
    config = ModelConfig.from_dict({**spec["model"], "vocab_size": rows})
    model = LanguageModel(config)
    initialise(model, spec["seed"])
    if model.model.side_stream == "text":
        if side_text is None:
            raise UserError(f"{spec['run']}: its variant needs the fixed text of its side stream (--side-text)")
        ids = side_tokens(side_text)
        if len(ids) < config.max_position_embeddings:
            raise UserError(f"{side_text}: {len(ids)} tokens, the side stream needs {config.max_position_embeddings}")
        model.model.side_input_ids.copy_(torch.from_numpy(ids[: config.max_position_embeddings]))
    return model


def _write_model(
    folder: Path, config: ModelConfig, weights: dict[str, Tensor], end_of_text: int, tokenizer: Path | None
) -> None:
    """The folder that transformers loads: weights, configuration and, when given, the tokenizer."""
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    stated = {"architectures": ["DeconAttnForCausalLM"], "model_type": "deconattn", "dtype": "float32"}
    write_json(
        folder / "config.json", {**config.to_dict(), **stated, "bos_token_id": None, "eos_token_id": end_of_text}
    )
    if tokenizer:
        for name in TOKENIZER_FILES:
            with atomic_write(folder / name) as temporary:
                shutil.copyfile(tokenizer / name, temporary)
