"""The measure stage: what each variant's mixer costs, by formula, counted and measured, beside what the paper prints."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deconattn import mixers
from deconattn.analysis.costs_schema import COSTS, DIFFERENCES
from deconattn.analysis.mixer_memory import held_for_backward, held_for_decoding, peak_bytes
from deconattn.analysis.paper_costs import ITEMSIZE, differences, printed
from deconattn.device import find_device
from deconattn.files import atomic_write, sha256_file, write_json
from deconattn.mixers._contract import Mixer, QKVMixer, QueriesKeys
from deconattn.mixers._costs import FLOAT, Costs
from deconattn.mixers._scores import side_positions
from deconattn.mixers._states import Seen, State
from deconattn.mixers.mlp import MLP, inner_width
from deconattn.model import ModelConfig

SHORTEST, LONGEST = 0.1, 10.0
"""Seconds for which a timing goes on at least, and after which it is not repeated again."""


def _product_flops(into: torch.Size, a: torch.Size, b: torch.Size, **_: object) -> int:
    """2·N·n·m·p of `into` (N, n, p) += a (N, n, m) @ b (N, m, p)."""
    return 2 * a.numel() * b[-1]


IN_PLACE = {torch.ops.aten.baddbmm_: _product_flops}
"""What FlopCounterMode would pass over: it knows this product, and not its form in place."""


@dataclass(frozen=True)
class Place:
    """Where and how often to measure: `repeats` timings or more, at most `memory_mb` MB of main memory (None: no limit)."""

    device: torch.device
    repeats: int
    memory_mb: int | None = None


class TooLarge(Exception):
    """A measurement that does not fit in memory; its text says what it needs."""


def measure_file(
    spec: dict[str, Any], out: Path, device: str, threads: int, memory_mb: int | None
) -> tuple[Path, Path]:
    """Write `<out>.parquet` (`costs_schema.COSTS`), `<out>-differences.parquet` (`costs_schema.DIFFERENCES`), and `<out>.json`.

    Args:
        spec: `model`, with its name and the fields of `ModelConfig`; `variants`, `batch_sizes`, `lengths`, `repeats`.
        device: "auto" (a GPU if there is one), "cpu", "cuda".
        threads: of a CPU.
        memory_mb: main memory in MB; what needs more is not tried, and its row says so.

    One row a variant, batch and length, be it measured or not; the JSON, written last, has `spec` and the tables' sums.
    Returns the paths of the tables.

    Raises:
        UserError: an unknown device, or a variant that is not there.
    """
    place = Place(find_device(device), spec["repeats"], memory_mb)
    torch.set_num_threads(threads)
    name, lengths = spec["model"]["name"], spec["lengths"]
    hardware = {"device": _device_name(place.device), "threads": threads if place.device.type == "cpu" else None}
    rows: list[dict[str, Any]] = []
    terms: list[dict[str, Any]] = []
    for variant in spec["variants"]:
        # The paper's lengths reach beyond a model's own: what is measured is a mixer of its shape.
        longest = max(spec["model"]["max_position_embeddings"], *lengths)
        changed = {"variant": variant, "layout": "uniform", "max_position_embeddings": longest, "vocab_size": 1}
        config = ModelConfig.from_dict({**spec["model"], **changed})
        for batch in spec["batch_sizes"]:
            for length in lengths:
                key = {"model": name, "variant": variant, "batch": batch, "length": length}
                row = measure(config, batch, length, place)
                rows.append({**key, **row, **hardware, "torch": torch.__version__})
                terms += [{**key, **asdict(term)} for term in differences(config, batch, length)]
                if row.get("reason"):
                    print(
                        f"{variant} B = {batch} L = {length}: not measured, {row['reason']}",
                        file=sys.stderr,
                        flush=True,
                    )
        print(f"{name}: {variant} measured", file=sys.stderr, flush=True)
    written = (
        _write(rows, COSTS, out.with_name(f"{out.name}.parquet")),
        _write(terms, DIFFERENCES, out.with_name(f"{out.name}-differences.parquet")),
    )
    record = {"spec": spec, "files": {path.name: sha256_file(path) for path in written}}
    write_json(out.with_name(f"{out.name}.json"), record)
    return written


def measure(config: ModelConfig, batch: int, length: int, place: Place) -> dict[str, Any]:
    """The row of one variant, batch and length, `COSTS` without its place: formulas, counts, and measurements or a `reason`."""
    row = formulas(config, batch, length)
    row["counted_prefill_flops"], row["counted_decode_flops"] = counted(config, batch, length)
    try:
        _refuse(config, batch, length, place)
        return {**row, **_training(config, batch, length, place), **_decoding(config, batch, length, place)}
    except TooLarge as error:
        return {**row, "reason": str(error)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {**row, "reason": f"out of memory on {torch.cuda.get_device_name(place.device)}"}


def formulas(config: ModelConfig, batch: int, length: int) -> dict[str, Any]:
    """What a row has without measuring: the shape, our formulas, the paper's."""
    mixer = mixers.find(config.variant)
    costs: Costs = mixer.costs(config, batch, length, FLOAT)
    paper = printed(config.variant, batch, length, config.hidden_size, config.num_attention_heads)
    return {
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "key_value_heads": config.kv_heads,
        "inner_width": inner_width(config) if issubclass(mixer, MLP) else None,
        "parameters": mixer.parameter_count(config),
        **asdict(costs),
        "state_bytes_bf16": mixer.costs(config, batch, length, ITEMSIZE).state_bytes,
        **({f"printed_{name}": value for name, value in asdict(paper).items()} if paper else {}),
    }


def counted(config: ModelConfig, batch: int, length: int) -> tuple[int, int]:
    """FLOPs of a forward over L tokens, and of the step from L − 1 to L, as FlopCounterMode sees them on the meta device."""
    with torch.no_grad(), torch.device("meta"):
        mixer = _mixer(config, torch.device("meta"))
        hidden, source = _inputs(mixer, batch, length, torch.device("meta"))
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as prefill:
            mixer(hidden, source)
        step = _filled(mixer, batch, length, torch.device("meta"), torch.float32)[0]
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as decode:
            step()
    return prefill.get_total_flops(), decode.get_total_flops()


def _refuse(config: ModelConfig, batch: int, length: int, place: Place) -> None:
    """Tell beforehand what a CPU would be killed for: forward's activations, their gradients, and the vectors around them."""
    if place.device.type != "cpu" or place.memory_mb is None:
        return
    mixer = mixers.find(config.variant)
    activations = mixer.costs(config, batch, length).activation_bytes
    vectors, weights = 10 * batch * length * config.hidden_size, 3 * mixer.parameter_count(config)
    needed = 2 * activations + FLOAT * (vectors + weights)
    if needed > place.memory_mb * 1e6:
        raise TooLarge(f"needs about {needed / 1e9:.1f} GB; {place.memory_mb / 1e3:.1f} GB are given (memory_mb)")


def _training(config: ModelConfig, batch: int, length: int, place: Place) -> dict[str, Any]:
    mixer = _mixer(config, place.device)
    hidden, source = _inputs(mixer, batch, length, place.device)
    for leaf in {id(x): x for x in (hidden, source)}.values():
        leaf.requires_grad_()
    gradient = torch.randn_like(hidden.detach())

    def forget() -> None:
        mixer.zero_grad(set_to_none=True)
        hidden.grad = source.grad = None

    def work() -> None:
        mixer(hidden, source).backward(gradient)

    held = held_for_backward(mixer, hidden, source)  # before the first repeat: kernels are compiled by it
    work()
    forget()
    peak = peak_bytes(work, place.device)
    seconds, repeats = _median(work, place.device, place.repeats, forget)
    return {
        "held_activation_bytes": held,
        "peak_bytes": peak,
        "training_ms": 1e3 * seconds / (batch * length),
        "training_repeats": repeats,
    }


@torch.no_grad()
def _decoding(config: ModelConfig, batch: int, length: int, place: Place) -> dict[str, Any]:
    mixer = _mixer(config, place.device)
    step, state, side = _filled(mixer, batch, length, place.device, torch.float32)
    step()
    held = held_for_decoding(state, side)
    # Each repeat puts the same token at the same place: length and cost stay what they are.
    seconds, repeats = _median(step, place.device, place.repeats)
    del step, state, side
    step, state, side = _filled(mixer.to(torch.bfloat16), batch, length, place.device, torch.bfloat16)
    step()
    return {
        "held_state_bytes": held,
        "held_state_bytes_bf16": held_for_decoding(state, side),
        "decode_ms": 1e3 * seconds,
        "decode_repeats": repeats,
    }


def _filled(
    mixer: Mixer, batch: int, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Callable[[], Tensor], State, QueriesKeys | None]:
    """A state that has seen L − 1 tokens, the step that adds one, and the side stream's queries and keys if there are any."""
    hidden, source = _inputs(mixer, batch, length, device, dtype)
    state, side = mixer.new_state(), None
    if isinstance(mixer, QKVMixer) and mixer.qk_source == "side":
        positions = side_positions(mixer.config, length)
        side = mixer.queries_keys(_inputs(mixer, 1, positions, device, dtype)[1])
        mixer(hidden[:, :-1], (side[0][:, :, : length - 1], side[1][:, :, : length - 1]), state)
    else:
        mixer(hidden[:, :-1], source[:, :-1], state)
    seen = Seen(torch.full((batch,), length - 1, device=device), length - 1, True)
    last, last_source = hidden[:, -1:].clone(), side or source[:, -1:].clone()
    return lambda: mixer.step(last, last_source, state, seen), state, side


def _mixer(config: ModelConfig, device: torch.device) -> Mixer:
    torch.manual_seed(0)
    return mixers.find(config.variant)(config).to(device)


def _inputs(
    mixer: Mixer, batch: int, length: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """`hidden` (B, L, d) and what `qk_source` names: the same, that of one row, or another (B, L, d)."""
    shape = (batch, length, mixer.config.hidden_size)
    hidden = torch.randn(shape, device=device, dtype=dtype)
    if mixer.qk_source == "hidden":
        return hidden, hidden
    rows = 1 if mixer.qk_source == "side" else batch
    return hidden, torch.randn((rows, *shape[1:]), device=device, dtype=dtype)


def _median(
    work: Callable[[], object], device: torch.device, repeats: int, after: Callable[[], None] | None = None
) -> tuple[float, int]:
    """Median seconds of `work` and how often it was timed: `repeats` times, more within `SHORTEST`, fewer beyond `LONGEST`."""
    taken: list[float] = []
    while (len(taken) < repeats or sum(taken) < SHORTEST) and sum(taken) < LONGEST:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - start)
        if after is not None:
            after()
    return statistics.median(taken), len(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def _write(rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> Path:
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
    return path
