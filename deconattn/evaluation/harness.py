"""Evaluate a trained model on tasks, modes and context lengths through lm-evaluation-harness (SPEC §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.evaluation.names import MODES, check_names
from deconattn.evaluation.passes import Row, run_task
from deconattn.evaluation.scoring import HarnessModel
from deconattn.evaluation.tasks import build_task


def load_model(folder: str | Path, device: str = "auto") -> Any:
    """The model of a folder written by `save_pretrained`, ready to be evaluated."""
    from deconattn.huggingface import DeconAttnForCausalLM

    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no model there (config.json is missing)")
    path = Path(folder) / "model.safetensors"
    try:
        with safe_open(path, "pt"):
            pass  # the library reads it whole, and does not say which file it cannot read
        model: Any = DeconAttnForCausalLM.from_pretrained(folder)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    return model.to(find_device(device)).eval()


def evaluate(
    model_folder: str | Path,
    tokenizer_folder: str | Path,
    tasks: Mapping[str, str | Path],
    *,
    modes: Sequence[str] = ("full",),
    context_lengths: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 16,
    device: str = "auto",
    report: Callable[[str], None] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Evaluate the model of `model_folder`; see `evaluate_model`."""
    check_names(tasks, modes)
    model = load_model(model_folder, device)
    return evaluate_model(
        model,
        tokenizer_folder,
        tasks,
        modes=modes,
        context_lengths=context_lengths,
        limits=limits,
        batch_size=batch_size,
        report=report,
    )


def evaluate_model(
    model: Any,
    tokenizer_folder: str | Path,
    tasks: Mapping[str, str | Path],
    *,
    modes: Sequence[str] = ("full",),
    context_lengths: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int | None] | None = None,
    batch_size: int = 16,
    report: Callable[[str], None] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Every task at every one of its context lengths in every mode.

    Args:
        model: forward(input_ids (B, L)) gives logits (B, L, V) through `lm_head`; its `skip` is set to None, "skip"
            or "skip_mixer"; `config.max_position_embeddings` is the longest context.
        tokenizer_folder: holds tokenizer.json.
        tasks: name → Parquet file of its items.
        modes: "full", "skip" (simple layers dropped), "skip_mixer" (only their mixers dropped).
        context_lengths: task → lengths in tokens (default: the longest that the model takes).
        limits: task → first items to score (default, null: all).
        batch_size: sequences of full length in one forward pass.
        report: is given one plain line a task, mode and context length.

    Returns:
        rows (mode, task, metric, context_length, value, stderr, items, limit) and samples (mode, task,
        context_length, item, target, prediction, correct, loglikelihoods, metric, value). A value that could not be
        measured, because the model's numbers are not finite, is None (a perplexity that overflows is inf), and
        `items` counts the items that could be scored.

    Raises:
        UserError: unknown task or mode, a file that does not hold the task's items, a context length that the model
            does not take.
    """
    check_names(tasks, modes)
    longest = model.config.max_position_embeddings
    lengths = {task: list((context_lengths or {}).get(task) or [longest]) for task in tasks}
    for task, wanted in lengths.items():
        for length in wanted:
            if not 1 <= length <= longest:
                raise UserError(
                    f"{task}: context length {length} is not within the model's positions (allowed: 1 to {longest})"
                )
    limits = {task: (limits or {}).get(task) for task in tasks}
    loaded = {task: build_task(task, path, limits[task]) for task, path in tasks.items()}
    lm = HarnessModel(model, tokenizer_folder, longest, batch_size)
    rows: list[Row] = []
    samples: list[Row] = []
    for mode in MODES:
        if mode not in modes:
            continue
        model.skip = None if mode == "full" else mode
        for name, task in loaded.items():
            for length in lengths[name]:
                lm.max_length = length
                values, items = run_task(lm, name, task)
                place = {"mode": mode, "task": name, "context_length": length}
                rows += [{**place, **value, "limit": limits[name]} for value in values]
                samples += [{**place, **item} for item in items]
                if report:
                    report(line(place, values, lm.shortened))
    model.skip = None
    return rows, samples


def line(place: Mapping[str, Any], values: Sequence[Row], shortened: int) -> str:
    """What one pass found, in words."""
    found = ", ".join(f"{v['metric']} {'none' if v['value'] is None else format(v['value'], '.4g')}" for v in values)
    cut = f", {shortened} requests cut to the context" if shortened else ""
    where = f"{place['task']} ({place['mode']}, context {place['context_length']})"
    return f"{where}: {found}; {values[0]['items']} items{cut}"
