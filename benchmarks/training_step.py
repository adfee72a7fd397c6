"""A training step of every variant beside transformers' Qwen2ForCausalLM, eager and compiled.

    python -m benchmarks.training_step --device cuda [--models 70m 1.7b] [--variants standard] [--layout even]
    python -m benchmarks.training_step --turns [--models nano 70m]

Forward, backward, clipping and AdamW, as a training of one process has them: float32 weights, micro-batches as large as the
device's memory allows, each block compiled. Qwen2 has the same sizes, batch, optimiser and precision, each of its kinds of
attention in turn, of which the fastest counts, and is compiled whole. What does not fit says so in its row. With `--turns`,
`standard` and Qwen2 with SDPA take turns instead, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.timing import machine, ratio, table, take_turns
from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.costs import training_flops
from deconattn.decoder import LanguageModel, initialise
from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.peaks import peak_of
from deconattn.training.microbatch import sequences_that_fit
from deconattn.training.optimizer import make_optimizer
from deconattn.training.parallel import Loss

PAPER = Path(__file__).parent.parent / "config" / "paper.yaml"
NANO = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "vocab_size": 1024,
}
ADAMW = {"peak_learning_rate": 1e-4, "betas": [0.9, 0.9999], "eps": 1e-8, "weight_decay": 0.1}
ATTENTION = ("sdpa", "flash_attention_2", "flex_attention", "eager")
# Of a CPU by default; the paper's batch on eight GPUs is 32 sequences of 2,048 tokens each.
DEFAULTS = {
    "cpu": {"models": ["nano"], "precision": "float32", "sequences": 8, "length": 128},
    "cuda": {"models": ["70m", "160m", "500m", "1.7b"], "precision": "bf16", "sequences": 32, "length": 2048},
}
HEAD = ["model", "variant", "", "micro-batch", "tokens/s", "MFU", "peak memory", "loss"]
TURNS = ["model", "", "Qwen2's time over ours, shortest", "median of rounds", "our peak memory over its"]
Step = Callable[[], float]


def shape(model: str, variant: str, layout: str) -> ModelConfig:
    """A model of the paper's grid with its tokenizer's vocabulary, or `nano`."""
    models = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["models"] | {"nano": NANO}
    if model not in models:
        raise UserError(f"--models: {model!r} is not one of {', '.join(models)}")
    return ModelConfig.from_dict({"vocab_size": 50_304, **models[model], "variant": variant, "layout": layout})


def ours(config: ModelConfig, rows: Tensor, most: int, options: Namespace, compiled: bool) -> tuple[nn.Module, int]:
    """The summed loss as a training has it, and how many sequences it holds at once, at most `most`."""
    model = LanguageModel(config)
    initialise(model, 0)
    if model.model.side_stream == "text":
        model.model.side_input_ids.random_(config.vocab_size)
    loss, micro = Loss(model.to(rows.device), options.precision), most
    if rows.is_cuda:
        memory = torch.cuda.get_device_properties(rows.device).total_memory
        micro = sequences_that_fit(loss, most, rows.shape[1], memory, 1)
    if compiled:
        loss.compile_parts(micro)
    return loss, micro


class Theirs(nn.Module):
    """The summed loss of transformers' Qwen2 of the same sizes."""

    def __init__(self, config: ModelConfig, attention: str, options: Namespace) -> None:
        super().__init__()
        sizes = {key: getattr(config, key) for key in (*NANO, "num_key_value_heads", "max_position_embeddings")}
        self.model = Qwen2ForCausalLM(Qwen2Config(**sizes, attn_implementation=attention, use_cache=False))
        self.bf16 = options.precision == "bf16"

    def forward(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(input_ids=rows, labels=rows).loss * rows[:, 1:].numel()


def theirs(config: ModelConfig, attention: str, rows: Tensor, options: Namespace, compiled: bool) -> nn.Module:
    """The same of Qwen2."""
    loss = Theirs(config, attention, options).to(rows.device)
    if compiled:
        loss.compile()
    return loss


def step_of(loss: nn.Module, rows: Tensor, micro: int) -> Step:
    """One update in micro-batches; returns the mean loss."""
    optimizer, targets = make_optimizer(loss, ADAMW), rows[:, 1:].numel()

    def run() -> float:
        total = torch.zeros((), device=rows.device)
        for piece in rows.split(micro):
            value = loss(piece)
            (value / targets).backward()
            total += value.detach()
        nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item() / targets

    return run


def measured(loss: nn.Module, micro: int, rows: Tensor, steps: int) -> tuple[float, str, float]:
    """(seconds a step, peak memory, loss of the first step), after two steps that compile and fill caches."""
    step = step_of(loss, rows, micro)
    first = step()
    if rows.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        step()
        peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    else:
        peak = f"{peak_bytes(step) / 1e6:.0f} MB"
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step()  # waits for its loss, and so for the device
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), peak, first


def peak_bytes(run: Step) -> int:
    """The most that PyTorch allocates in main memory at a time, above weights and optimiser state."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def row(model: str, variant: str, attention: str | None, compiled: bool, options: Namespace) -> tuple[float, list[str]]:
    """(tokens a second, a row of the table); 0 where it could not run. `attention` is Qwen2's, None for ours."""
    config = shape(model, variant, options.layout)
    words = [model, f"Qwen2, {attention}" if attention else variant, "compiled" if compiled else "eager"]
    most = options.sequences
    while most:
        gc.collect()
        torch.compiler.reset()
        torch.cuda.empty_cache()
        torch.manual_seed(0)
        rows = torch.randint(config.vocab_size, (options.sequences, options.length), device=options.place)
        try:
            if attention:
                loss, micro = theirs(config, attention, rows, options, compiled), most
            else:
                loss, micro = ours(config, rows, most, options, compiled)
            seconds, peak, value = measured(loss, micro, rows, options.steps)
        except torch.OutOfMemoryError:
            most //= 2
            continue
        except (UserError, ImportError, ValueError, RuntimeError) as error:  # it does not fit, or cannot be had here
            return 0.0, [*words, "", " ".join(str(error).split())[:80], "", "", ""]
        mfu = f"{training_flops(config, *rows.shape) / seconds / options.peak:.1%}" if options.peak else "–"
        speed = rows.numel() / seconds
        return speed, [*words, str(micro), f"{speed:,.0f}", mfu, peak, f"{value:.4f}"]
    return 0.0, [*words, "1", "out of memory", "", "", ""]


def lines(options: Namespace) -> Iterator[list[str]]:
    """The rows of the table: of Qwen2's kinds of attention the fastest alone."""
    for model in options.models:
        for compiled in (mode == "compiled" for mode in options.modes):
            # Eager kernels of flex_attention hold whole maps.
            kinds = [kind for kind in ATTENTION if compiled or kind != "flex_attention"]
            yield max(row(model, "standard", kind, compiled, options) for kind in kinds)[1]
            for variant in options.variants:
                yield row(model, variant, None, compiled, options)[1]


def in_turns(options: Namespace) -> Iterator[list[str]]:
    """Rows of the table of `--turns`, times of the processor."""
    for model in options.models:
        config = shape(model, "standard", options.layout)
        rows = torch.randint(config.vocab_size, (options.sequences, options.length), device=options.place)
        for mode in options.modes:
            torch.compiler.reset()
            losses = {
                "ours": ours(config, rows, options.sequences, options, mode == "compiled")[0],
                "Qwen2": theirs(config, "sdpa", rows, options, mode == "compiled"),
            }
            steps = {name: step_of(loss, rows, options.sequences) for name, loss in losses.items()}
            times = ratio(take_turns(steps, options.steps), "Qwen2", "ours")
            peaks = {name: peak_bytes(step) for name, step in steps.items()}
            yield [model, mode, *(f"{time:.2f}" for time in times), f"{peaks['ours'] / peaks['Qwen2']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--variants", nargs="+", default=mixers.names())
    parser.add_argument("--layout", default="uniform")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--precision", choices=("bf16", "float32"))
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--length", type=int)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", action="store_true", help="`standard` and Qwen2 in turns; on a CPU")
    parser.add_argument("--device-tflops", type=float, default=0.0, help="what the device could do at most, for MFU")
    options = parser.parse_args()
    try:
        options.place = find_device(options.device)
    except UserError as error:
        parser.error(str(error))
    if options.turns and options.place.type != "cpu":
        parser.error("--turns takes the processor's time: --device cpu")
    torch.set_num_threads(options.threads)
    for key, value in DEFAULTS[options.place.type].items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    options.peak = options.device_tflops * 1e12
    if options.place.type == "cuda" and not options.peak:
        options.peak = (peak_of(torch.cuda.get_device_name()) or (0.0, 0.0))[options.precision == "float32"]
    batch = f"{options.sequences} × {options.length} tokens a step, {options.precision}, {options.layout}"
    head, rows = (TURNS, in_turns(options)) if options.turns else (HEAD, lines(options))
    print(f"Measured on: {machine(options.place)}. {batch}.\n\n{table(head, [])}", flush=True)
    for line in rows:
        print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
