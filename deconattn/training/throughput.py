"""How fast a training is, against what the device could do: MFU, time waiting for data, memory."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from deconattn.costs import training_flops
from deconattn.model import ModelConfig

PEAK_TFLOPS = {
    # The makers' dense bf16 figures with float32 accumulation; the first name that the device's name contains counts.
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "H200": 989.4,
    "GH200": 989.4,
    "B200": 2250.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI300X": 1307.4,
    "MI250X": 191.5,  # one of its two dies, which is what a process sees
}


def peak_flops(device: torch.device, precision: str, stated_tflops: float | None) -> float | None:
    """FLOP/s that the device could do at most: as stated, else the maker's figure for bf16; None where neither is known."""
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Most memory so far, in bytes: allocated on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Measures the updates of one training on `processes` devices like `device`, each of `peak` FLOP/s (None: not known)."""

    def __init__(self, config: ModelConfig, device: torch.device, processes: int, peak: float | None) -> None:
        self.config, self.device = config, device
        self.peak = None if peak is None else peak * processes
        self._flops: dict[tuple[int, int], int] = {}

    def __call__(self, sequences: int, length: int, seconds: float) -> dict[str, Any]:
        """The columns `mfu` and `peak_memory_bytes` for an update of `sequences` × `length` tokens in `seconds`.

        MFU (Chowdhery et al., 2022) counts the FLOPs that the variant needs, once each, forward and backward: less than are
        done where activations are computed again, and other than standard attention's for the other variants.
        """
        mfu = None
        if self.peak is not None:
            if (sequences, length) not in self._flops:
                self._flops[sequences, length] = training_flops(self.config, sequences, length)
            mfu = self._flops[sequences, length] / seconds / self.peak
        return {"mfu": mfu, "peak_memory_bytes": peak_memory(self.device)}
