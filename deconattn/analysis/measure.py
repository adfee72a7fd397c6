"""The measure stage: what each variant's mixer costs, by formula, counted and measured, beside what the paper prints."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deconattn import mixers
from deconattn.analysis.mixer_memory import held_for_backward, held_for_decoding, peak_bytes
from deconattn.analysis.paper_costs import ITEMSIZE, differences, printed
from deconattn.analysis.schema import COSTS, DIFFERENCES
from deconattn.config import ModelConfig
from deconattn.costs import mixer_costs, mixer_parameters
from deconattn.device import find_device
from deconattn.experiment.record import short_hash
from deconattn.mixers.base import Mixer, QKVMixer
from deconattn.mixers.cache import CacheLengths, QueriesKeys, State, side_positions
from deconattn.mixers.formulas import FLOAT
from deconattn.mixers.mlp import MLP, inner_width
from deconattn.pieces import Keep, make_all
from deconattn.result_tables import write_rows

SHORTEST, LONGEST = 0.05, 10.0
"""Seconds for which a timing is repeated at least, and after which it is not repeated again."""
META = torch.device("meta")


def measure_file(
    spec: dict[str, Any], out: Path, device: str, threads: int, memory_mb: int | None, keep: Keep = make_all
) -> tuple[Path, Path]:
    """Write `<out>.parquet` (`schema.COSTS`) and `<out>-differences.parquet` (`schema.DIFFERENCES`).

    Args:
        spec: `model`, with its name and the fields of `ModelConfig`; `variants`, `batch_sizes`, `lengths`, `repeats`.
        device: "auto" (a GPU if there is one), "cpu", "cuda".
        threads: of a CPU.
        memory_mb: main memory in MB; what needs more is not tried, and its row says so.
        keep: where each row's measurements on this hardware are kept, so that a stopped job goes on.

    One row for each variant, batch and length, measured or not. Returns the paths of the tables.

    Raises:
        UserError: an unknown device, or a variant that is not there.
    """
    where = find_device(device)
    torch.set_num_threads(threads)
    on_cpu = where.type == "cpu"
    processor = f"CPU, {torch.backends.cpu.get_cpu_capability()}" if on_cpu else torch.cuda.get_device_name(where)
    hardware = {"device": processor, "threads": threads if on_cpu else None, "torch": torch.__version__}
    rows: list[dict[str, Any]] = []
    terms: list[dict[str, Any]] = []
    for variant, batch, length in product(spec["variants"], spec["batch_sizes"], spec["lengths"]):
        # The paper's lengths exceed the model's context: what is measured is a mixer of the model's shape.
        longest = max(spec["model"]["max_position_embeddings"], *spec["lengths"])
        changed = {"variant": variant, "layout": "uniform", "max_position_embeddings": longest, "vocab_size": 1}
        config = ModelConfig.from_dict({**spec["model"], **changed})
        key = {"model": spec["model"]["name"], "variant": variant, "batch": batch, "length": length}
        measure = partial(measured, config, batch, length, where, spec["repeats"], memory_mb if on_cpu else None)
        found = keep(f"{variant}-{batch}-{length}-{short_hash(hardware)}", measure)
        rows.append({**key, **formulas(config, batch, length), **counted(config, batch, length), **found, **hardware})
        terms += [{**key, **asdict(term)} for term in differences(config, batch, length)]
        said = f"not measured, {found['reason']}" if "reason" in found else "measured"
        print(f"{variant} B = {batch} L = {length}: {said}", file=sys.stderr, flush=True)
    return (
        write_rows(out.with_name(f"{out.name}.parquet"), rows, COSTS),
        write_rows(out.with_name(f"{out.name}-differences.parquet"), terms, DIFFERENCES),
    )


def formulas(config: ModelConfig, batch: int, length: int) -> dict[str, Any]:
    """The columns of `COSTS` that need no measuring: the shape, our formulas, the paper's."""
    mixer = mixers.find(config.variant)
    paper = printed(config.variant, batch, length, config.hidden_size, config.num_attention_heads)
    return {
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "key_value_heads": config.kv_heads,
        "inner_width": inner_width(config) if issubclass(mixer, MLP) else None,
        "parameters": mixer_parameters(config),
        **asdict(mixer_costs(config, batch, length, FLOAT)),
        "state_bytes_bf16": mixer_costs(config, batch, length, ITEMSIZE).state_bytes,
        **({f"printed_{name}": value for name, value in asdict(paper).items()} if paper else {}),
    }


@torch.no_grad()
def counted(config: ModelConfig, batch: int, length: int) -> dict[str, int]:
    """FLOPs of a forward over L tokens, and of the step from L − 1 to L, as FlopCounterMode sees them on the meta device."""
    mixer = _mixer(config, META)
    hidden, source = _inputs(mixer, batch, length)
    step, _, _ = _filled(mixer, batch, length)
    return {"counted_prefill_flops": _flops(lambda: mixer(hidden, source)), "counted_decode_flops": _flops(step)}


def _flops(work: Callable[[], object]) -> int:
    # The counter knows this product, but not its form in place: `into` (N, n, p) += a (N, n, m) @ b (N, m, p), 2·N·n·m·p.
    in_place = {torch.ops.aten.baddbmm_: lambda into, a, b, **_: 2 * a.numel() * b[-1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        work()
    return counter.get_total_flops()


def measured(
    config: ModelConfig, batch: int, length: int, device: torch.device, repeats: int, memory_mb: int | None
) -> dict[str, Any]:
    """The measured columns of `COSTS`, or the `reason` why there are none; at most `memory_mb` MB (None: no limit)."""
    if memory_mb is not None and (needed := _bytes_needed(config, batch, length)) > memory_mb * 1e6:
        return {
            "reason": f"needs about {needed / 1e9:.1f} GB; {memory_mb / 1e3:.1f} GB are given (evaluation_memory_mb)"
        }
    try:
        training = _training(config, batch, length, device, repeats)
        return {**training, **_decoding(config, batch, length, device, repeats)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"reason": f"out of memory on {torch.cuda.get_device_name(device)}"}


def _bytes_needed(config: ModelConfig, batch: int, length: int) -> float:
    """About the peak of a training step: activations, their gradients, and the vectors and weights around them."""
    mixer = _mixer(config, META)
    hidden, source = _inputs(mixer, batch, length)
    activations = held_for_backward(mixer, hidden.requires_grad_(), source.requires_grad_())
    vectors, weights = 12 * batch * length * config.hidden_size, 4 * mixer_parameters(config)
    return 2 * activations + FLOAT * (vectors + weights)


def _training(config: ModelConfig, batch: int, length: int, device: torch.device, repeats: int) -> dict[str, Any]:
    mixer = _mixer(config, device)
    hidden, source = (x.requires_grad_() for x in _inputs(mixer, batch, length))
    gradient = torch.randn_like(hidden.detach())

    def work() -> None:
        mixer(hidden, source).backward(gradient)

    def forget() -> None:
        mixer.zero_grad(set_to_none=True)
        hidden.grad = source.grad = None

    held = held_for_backward(mixer, hidden, source)
    work()  # compiles kernels before anything is timed
    forget()
    peak = peak_bytes(work, device)
    forget()
    seconds, timed = _median(work, device, repeats, forget)
    return {
        "held_activation_bytes": held,
        "peak_bytes": peak,
        "training_ms": 1e3 * seconds / (batch * length),
        "training_repeats": timed,
    }


@torch.no_grad()
def _decoding(config: ModelConfig, batch: int, length: int, device: torch.device, repeats: int) -> dict[str, Any]:
    mixer = _mixer(config, device)
    step, state, side = _filled(mixer, batch, length)
    step()
    held = held_for_decoding(state, side)
    # Each repeat puts the same token at the same place: length and cost stay what they are.
    seconds, timed = _median(step, device, repeats)
    del step, state, side
    step, state, side = _filled(mixer.to(torch.bfloat16), batch, length)
    step()
    return {
        "held_state_bytes": held,
        "held_state_bytes_bf16": held_for_decoding(state, side),
        "decode_ms": 1e3 * seconds,
        "decode_repeats": timed,
    }


def _filled(mixer: Mixer, batch: int, length: int) -> tuple[Callable[[], Tensor], State, QueriesKeys | None]:
    """The step that adds a token to L − 1, the state it adds to, and the side stream's queries and keys if there are any."""
    hidden, source = _inputs(mixer, batch, length)
    state, side, none = mixer.new_state(), None, CacheLengths.none(batch, hidden.device)
    if isinstance(mixer, QKVMixer) and mixer.qk_source == "side":
        positions = side_positions(length, mixer.config.max_position_embeddings)
        side = mixer.queries_keys(_inputs(mixer, 1, positions)[1])
    mixer.step(hidden[:, :-1], side or source[:, :-1], state, none)
    seen = none.after(length - 1)
    last, last_source = hidden[:, -1:].clone(), side or source[:, -1:].clone()
    return lambda: mixer.step(last, last_source, state, seen), state, side


def _mixer(config: ModelConfig, device: torch.device) -> Mixer:
    torch.manual_seed(0)
    with device:
        return mixers.find(config.variant)(config)


def _inputs(mixer: Mixer, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """`hidden` (B, L, d), and the source of queries and keys: the same tensor, one row, or another (B, L, d)."""
    weight = next(mixer.parameters())
    kind: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    hidden = torch.randn(batch, length, mixer.config.hidden_size, **kind)
    if mixer.qk_source == "hidden":
        return hidden, hidden
    return hidden, torch.randn(1 if mixer.qk_source == "side" else batch, *hidden.shape[1:], **kind)


def _median(
    work: Callable[[], object], device: torch.device, repeats: int, after: Callable[[], None] = lambda: None
) -> tuple[float, int]:
    """Median seconds of `work`, and how often it was timed: `repeats` times, more up to `SHORTEST`, fewer beyond `LONGEST`."""
    taken: list[float] = []
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    while (len(taken) < repeats or sum(taken) < SHORTEST) and sum(taken) < LONGEST:
        wait()
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
        after()
    return statistics.median(taken), len(taken)
