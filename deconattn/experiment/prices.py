"""What trainings cost: FLOPs, hours of a device, bytes. From finished runs where there are any, else from a stated MFU."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.code import code_digest
from deconattn.experiment.guard import Finished, amount
from deconattn.experiment.identity import Identity, short_hash
from deconattn.experiment.job import run_of
from deconattn.experiment.records import read_record
from deconattn.files import write_json
from deconattn.nearest import not_one_of

DEVICES: dict[str, tuple[float, float]] = {
    "h100": (989e12, 67e12),
    "h200": (989e12, 67e12),
    "b200": (2250e12, 80e12),
    "a100": (312e12, 19.5e12),
    "l40s": (362e12, 91.6e12),
    "a6000": (155e12, 38.7e12),
    "rtx4090": (165e12, 82.6e12),
    "v100": (125e12, 15.7e12),
    "mi250x": (383e12, 47.9e12),
    "mi300x": (1307e12, 163.4e12),
    "cpu": (0.2e12, 0.095e12),
}
"""Device → peak FLOP/s (bf16 without sparsity, float32), of the makers' data sheets; `cpu`: a thread, measured."""

ASSUMED_VOCABULARY = 50_304
BYTES_KEPT, BYTES_WHILE_TRAINING = 4 + 12, 4 + 3 * 12
"""A parameter's bytes on disk: weights and one checkpoint (weights, two moments); while training, three for a moment."""


@dataclass(frozen=True)
class Price:
    """What one training costs that is still to be done. `rate_from` says where its speed is from."""

    run: str
    parameters: int
    tokens: int
    flops: int
    hours: float
    gpus: int
    rate_from: str

    @property
    def gpu_hours(self) -> float:
        """Hours × processes; a process on a CPU counts as one."""
        return self.hours * self.gpus


class Formulas:
    """Parameters and FLOPs of an update of a spec, remembered on disk: working them out takes an import of torch."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.file = cache / "deconattn" / "costs.json"
        self.known: dict[str, list[int]] = read_record(self.file)[0] or {}
        self._grown = False

    def of(self, spec: Mapping[str, Any], vocabulary: int, length: int) -> tuple[int, int]:
        """(parameters, FLOPs of forward and backward of one update)."""
        run = run_of(dict(spec))
        sequences = spec["training"]["sequences_per_step"]
        code = code_digest("deconattn.costs", *Identity.mixer_modules(run))
        key = short_hash([code, spec["model"], vocabulary, length, sequences])
        if not _is_pair(self.known.get(key)):
            from deconattn.costs import training_flops
            from deconattn.model import ModelConfig, parameter_count

            config = ModelConfig.from_dict({**spec["model"], "vocab_size": vocabulary})
            self.known[key] = [parameter_count(config), training_flops(config, sequences, length)]
            self._grown = True
        parameters, flops = self.known[key]
        return parameters, flops

    def save(self) -> None:
        """Remember; a folder that cannot be written only makes the next plan slower."""
        if self._grown:
            with contextlib.suppress(OSError):
                write_json(self.file, self.known)


def _is_pair(found: object) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(isinstance(value, int) for value in found)


class Prices:
    """Prices of the trainings of a configuration.

    Args:
        finished: finished runs by stem, whose speed is taken where model (and better: variant and layout) are the same.
        device: key of `DEVICES` for runs of which none is finished; mfu: model FLOPs utilisation there (0 to 1).

    Raises:
        UserError: a device that is not in the table, an MFU that cannot be.
    """

    def __init__(self, ident: Identity, finished: Mapping[str, list[Finished]], device: str, mfu: float) -> None:
        if device not in DEVICES:
            raise UserError(f"--device: {not_one_of(device, 'device of the table', DEVICES)}")
        if not 0 < mfu <= 1:
            raise UserError(f"--mfu {mfu:g} is not allowed; must be more than 0 and at most 1")
        self.ident, self.device, self.mfu = ident, device, mfu
        self.formulas = Formulas()
        self.length = ident.settings.tokens.context_length
        self.vocabulary, self.vocabulary_from = _vocabulary(ident)
        self._speeds = self._measured(finished)

    def _padded(self, spec: Mapping[str, Any]) -> int:
        multiple = spec["model"].get("pad_vocabulary_to", 1)
        return -(-self.vocabulary // multiple) * multiple

    def _measured(self, finished: Mapping[str, list[Finished]]) -> dict[tuple[str, ...], tuple[float, str]]:
        """(model, variant, layout) and (model,) → FLOP/s of a process, and the run it is from; of the newest run of each."""
        found: dict[tuple[str, ...], tuple[float, str]] = {}
        models = {run.model for run in self.ident.runs}
        runs = [run for runs in finished.values() for run in runs]
        for run in sorted(runs, key=lambda run: amount(run.done.get("ended"))):
            spec, _ = read_record(run.folder / "spec.json")
            # A run whose variant has no file any more, or whose records were damaged, tells no speed.
            with contextlib.suppress(Exception):
                if not spec or spec["model"]["name"] not in models or run.done.get("status") != "finished":
                    continue
                # A model's name may stand for another shape by now; the FLOPs are those of what was trained.
                _, flops = self.formulas.of(spec, self._padded(spec), self.length)
                rate = flops * run.done["steps"] / (run.gpu_hours * 3600)
                model = spec["model"]
                found[(model["name"], model["variant"], model["layout"])] = rate, run.folder.name
                found[(model["name"],)] = rate, run.folder.name
        return found

    def of(self, run: str, steps_done: int) -> Price:
        """Price of what is left of a training after `steps_done` updates."""
        from deconattn.experiment import grid

        spec = self.ident.specs[run]
        model, training = spec["model"], spec["training"]
        parameters, flops = self.formulas.of(spec, self._padded(spec), self.length)
        steps = training["steps"] - steps_done
        resources = grid.resources_of(self.ident.settings, model["name"])
        speed = self._speeds.get((model["name"], model["variant"], model["layout"])) or self._speeds.get(
            (model["name"],)
        )
        if speed:
            rate, source = speed[0], f"speed of {speed[1]}"
        else:
            device = self.device if resources.gpus else "cpu"
            peak = DEVICES[device][0 if training["precision"] == "bf16" else 1]
            rate = peak * self.mfu * (1 if resources.gpus else resources.threads)
            source = f"{device} at {self.mfu:.0%} MFU"
        return Price(
            run, parameters, steps * training["sequences_per_step"] * self.length, flops * steps,
            flops * steps / rate / resources.processes / 3600, resources.processes, source,
        )  # fmt: skip


def _vocabulary(ident: Identity) -> tuple[int, str]:
    """Entries of the tokenizer, and whether they are known."""
    if ident.settings.tokenizer.kind == "train":
        return ident.settings.tokenizer.vocab_size, "the config"
    manifest, _ = read_record(ident.tokens / "manifest.json")
    if manifest:
        return int(manifest["vocab_size"]), "the token table"
    with contextlib.suppress(OSError, ValueError, KeyError):
        words = json.loads((ident.tokenizer / "tokenizer.json").read_text())
        return len(words["model"]["vocab"]) + len(words.get("added_tokens") or ()), "the tokenizer"
    return ASSUMED_VOCABULARY, "assumed: the tokenizer is not mirrored yet"


def wall_hours(prices: list[Price], devices: int) -> float | None:
    """Hours until all are done, the longest first, each on as many devices as it has processes; None if one needs more."""
    if any(price.gpus > devices for price in prices):
        return None
    free = [0.0] * devices
    for price in sorted(prices, key=lambda price: -price.hours):
        free.sort()
        end = free[price.gpus - 1] + price.hours
        free[: price.gpus] = [end] * price.gpus
    return max(free, default=0.0)
