"""Whether torch computes bf16 products fast on this CPU, and the warning if it does not.

torch asks oneDNN, its library for bf16 products on CPUs. On x86 below AVX-512 the answer is no: a scalar loop computes them.
`torch.cpu.get_capabilities()`, the public list of instructions, does not answer this: oneDNN is also fast on AVX-512 without
bf16 instructions, and `ONEDNN_MAX_CPU_ISA` can keep it from using those that exist.
"""

from __future__ import annotations

import functools
import subprocess
import sys

SLOW = (
    "training.precision: bf16 takes 10 to 100 times as long as float32 on this CPU, which has no fast products for it; "
    "set `precision: float32` (this names other runs, because precision is part of a run's identity)"
)


def is_slow(device: str) -> bool:
    """Whether `device` ("auto", "cpu" or "cuda") is, in this process, a CPU on which torch computes bf16 slowly."""
    import torch

    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def is_slow_here(device: str) -> bool:
    """The same, from a separate process, for callers that do not import torch. Runs once."""
    code = f"from deconattn.bf16 import is_slow; print(is_slow({device!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() == "True"
