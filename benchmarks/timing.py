"""Times as ratios of one run: the compared functions take turns, so that what else the machine does meets all alike.

It is the processor's time that counts, on one thread: waiting for a processor that others use is no one's fault.
"""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def take_turns(functions: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Processor seconds of `calls` calls of each function in each of `rounds` rounds, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            if calls > 1:
                function()  # what the one before has left in the caches is not its doing
            started = time.process_time()
            for _ in range(calls):
                function()
            if turn:
                seconds[name].append(time.process_time() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> tuple[float, float]:
    """The ratio of the shortest times, and the median of the rounds' own ratios."""
    rounds = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
    return min(seconds[over]) / min(seconds[under]), statistics.median(rounds)


def keep_memory() -> None:
    """Let the C library keep what is freed, as a GPU's allocator does: a fresh page may cost more than what is done with it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: at most this much may come from the heap at a time
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def machine(device: torch.device | None = None) -> str:
    """What this was measured on, in a line: the processor, or the GPU."""
    if device and device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 1e9
        return f"{torch.cuda.get_device_name(device)} ({memory:.0f} GB), torch {torch.__version__}, CUDA {torch.version.cuda}"
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    load = os.getloadavg()[0]
    return f"{model}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, load before {load:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
