"""What trainings, evaluations and analyses cost in hours of a device: by finished ones where there are any.

Else a training is priced by its FLOPs: at the speed of a finished run of another size, scaled as published MFUs are, or at
those (or a stated one) of the device's peak. The others are priced by their time limit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.code import reach, roots
from deconattn.experiment.data_identity import RESULTS
from deconattn.experiment.identity import Identity
from deconattn.experiment.memo import Memo
from deconattn.experiment.record import amount, read_object, read_record, short_hash
from deconattn.experiment.results import Finished
from deconattn.experiment.sources import RecallCorpus, TrainedTokenizer
from deconattn.peaks import PEAKS, published_mfu

ASSUMED_VOCABULARY = 50_304
CPU_MFU = 0.4
LIMIT = "at most, by its time limit"


@dataclass(frozen=True)
class Price:
    """What one job still costs. `gpus`: its processes, on a CPU too; `rate_from`: where its speed is from."""

    stage: str
    run: str
    model: str
    gpu_hours: float
    rate_from: str
    gpus: int = 1
    parameters: int = 0
    tokens: int = 0
    flops: int = 0


def prices(
    ident: Identity,
    trainings: Iterable[Artefact],
    finished: Iterable[Finished] = (),
    device: str = "h100",
    mfu: float | None = None,
) -> list[Price]:
    """What is left of each training after its newest checkpoint.

    Args:
        finished: runs whose speed is taken for the same model, if possible of the same variant and layout; latest first.
        device: key of `PEAKS` for models of which no run is finished.
        mfu: model FLOPs utilisation there (0 to 1); None: published ones, and the speed of finished runs of other sizes.
    """
    formulas = _Formulas(ident)
    speeds, sizes = _speeds(ident, finished, formulas)
    found = []
    for one in trainings:
        model, training = one.spec["model"], one.spec["training"]
        resources = grid.resources_of(ident.settings, model["name"])
        parameters, flops = formulas.of(one.spec)
        rate = speeds.get((model["name"], model["variant"], model["layout"])) or speeds.get((model["name"],))
        if not rate and mfu is None and resources.gpus and sizes:
            size, speed, run = min(sizes, key=lambda each: abs(math.log(each[0] / parameters)))
            rate = speed * published_mfu(device, parameters) / published_mfu(device, size), f"{run}, scaled to the size"
        if not rate:
            used = device if resources.gpus else "cpu"
            share = mfu or (published_mfu(device, parameters) if resources.gpus else CPU_MFU)
            peak = PEAKS[used][0 if training["precision"] == "bf16" else 1]
            rate = peak * share * (1 if resources.gpus else resources.threads), f"{used} at {share:.0%} MFU"
        done = [path.name.removeprefix("step-") for path in one.folder.glob("checkpoints/step-*")]
        steps = training["steps"] - max((int(name) for name in done if name.isdigit()), default=0)
        length = ident.settings.tokens_of(model["name"]).context_length
        tokens = steps * training["sequences_per_step"] * length
        hours, total = flops * steps / rate[0] / 3600, flops * steps
        found.append(
            Price(
                "pretrain",
                one.folder.name,
                model["name"],
                hours,
                rate[1],
                resources.processes,
                parameters,
                tokens,
                total,
            )
        )
    formulas.memo.keep()
    return found


def prices_by_time(ident: Identity, wanted: Sequence[Artefact]) -> list[Price]:
    """Evaluations and analyses: the mean of what finished ones of the model took, else at most their time limit."""
    rates: dict[tuple[str, str | None], tuple[float, str]] = {}
    for stage, model in {(one.stage, one.model) for one in wanted}:
        name = {"evaluate": "evaluation", "analyse": "analysis"}[stage]
        records = [read_record(folder) or {} for folder in RESULTS.glob(f"runs/{model}-*/{name}-*")]
        taken = [seconds / 3600 for record in records if (seconds := amount(record.get("seconds")))]
        limit = grid.resources_of(ident.settings, model or "").evaluation_minutes / 60
        rates[stage, model] = (fmean(taken), "mean of finished ones") if taken else (limit, LIMIT)
    return [Price(one.stage, one.folder.parent.name, str(one.model), *rates[one.stage, one.model]) for one in wanted]


def _speeds(
    ident: Identity, finished: Iterable[Finished], formulas: _Formulas
) -> tuple[dict[tuple[str, ...], tuple[float, str]], list[tuple[int, float, str]]]:
    """(model, variant, layout) and (model,) → FLOP/s of a process, and "speed of" the latest run of each; and of all runs on
    a GPU: parameters, FLOP/s, "speed of"."""
    found: dict[tuple[str, ...], tuple[float, str]] = {}
    sizes: list[tuple[int, float, str]] = []
    models = {run.model for run in ident.runs}
    for run in finished:
        # A damaged record, or a run whose variant has no file any more, tells no speed.
        with contextlib.suppress(Exception):
            model = run.record["spec"]["model"]
            if model["name"] in models and run.record["status"] == "finished":
                # A model's name may stand for another shape by now: the FLOPs are those of the shape that was trained.
                parameters, flops = formulas.of(run.record["spec"])
                speed = flops * run.record["steps"] / (run.gpu_hours * 3600), f"speed of {run.folder.name}"
                found.setdefault((model["name"], model["variant"], model["layout"]), speed)
                found.setdefault((model["name"],), speed)
                if run.record.get("device", "cpu") != "cpu":
                    sizes.append((parameters, *speed))
    return found, sizes


class _Formulas:
    """Parameters and FLOPs of a spec, kept on disk: computing them takes an import of torch, and seconds for a large grid."""

    def __init__(self, ident: Identity) -> None:
        self.memo: Memo[list[int]] = Memo("costs")
        self.lengths = {model: ident.settings.tokens_of(model).context_length for model in ident.token_tables}
        self.vocabularies = {model: vocabulary(ident, model) or ASSUMED_VOCABULARY for model in ident.token_tables}

    def of(self, spec: dict[str, Any]) -> list[int]:
        """[parameters, FLOPs of forward and backward of one update]."""
        model, sequences = spec["model"], spec["training"]["sequences_per_step"]
        multiple, length = model.get("pad_vocabulary_to", 1), self.lengths[model["name"]]
        size = -(-self.vocabularies[model["name"]] // multiple) * multiple

        def compute() -> list[int]:
            from deconattn.config import ModelConfig
            from deconattn.costs import training_flops
            from deconattn.decoder import parameter_count

            config = ModelConfig.from_dict({**model, "vocab_size": size})
            return [parameter_count(config), training_flops(config, sequences, length)]

        code = reach(*roots("costs", model["variant"], "standard"))["digest"]
        return self.memo.of(short_hash([code, model, size, length, sequences]), compute)


def vocabulary(ident: Identity, model: str) -> int | None:
    """Entries of a model's tokenizer; None before it is mirrored."""
    corpus, tokenizer = ident.settings.corpus_of(model), ident.settings.tokenizer
    if isinstance(corpus, RecallCorpus):
        return corpus.vocabulary
    if isinstance(tokenizer, TrainedTokenizer):
        return tokenizer.vocab_size
    manifests = [
        read_object(one.folder / "manifest.json") for one in (ident.token_tables[model], ident.tokenizer) if one
    ]
    return next((int(manifest["vocab_size"]) for manifest in manifests if manifest), None)
