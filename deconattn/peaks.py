"""What devices can do at most, from the makers' data sheets: for the prices of a plan and for a training's MFU."""

from __future__ import annotations

import itertools
import math
import re

PEAKS: dict[str, tuple[float, float]] = {
    "h100": (989.4e12, 67e12),
    "h100nvl": (835e12, 60e12),
    "h100pcie": (756e12, 51e12),
    "h200": (989.4e12, 67e12),
    "gh200": (989.4e12, 67e12),
    "b200": (2250e12, 80e12),
    "a100": (312e12, 19.5e12),
    "a40": (149.7e12, 37.4e12),
    "a30": (165e12, 10.3e12),
    "a10": (125e12, 31.2e12),
    "l40s": (362e12, 91.6e12),
    "l4": (121e12, 30.3e12),
    "a6000": (155e12, 38.7e12),
    "rtx4090": (165.2e12, 82.6e12),
    "rtx3090": (71e12, 35.6e12),
    "v100": (125e12, 15.7e12),
    "mi250x": (191.5e12, 23.95e12),
    "mi300x": (1307.4e12, 163.4e12),
    "cpu": (0.2e12, 0.095e12),
}
"""Device → peak FLOP/s (bf16 without sparsity, float32). `mi250x`: one of its two dies, which is what a process sees;
`v100`: fp16, as it has no bf16; `cpu`: a thread, measured."""


MFU: dict[str, tuple[tuple[float, float], ...]] = {
    "h100": ((125e6, 0.275), (356e6, 0.317), (760e6, 0.349), (1.316e9, 0.418), (2.65e9, 0.437)),
    "a100": ((125e6, 0.448), (356e6, 0.516), (760e6, 0.569), (1.316e9, 0.599), (2.65e9, 0.621)),
}
"""Device → (parameters, model FLOPs utilisation) of dense models at a context of 2,048 in bf16, smallest first.

Source: llm-foundry, scripts/train/benchmarking/README.md, 8 GPUs (H100 at 2.65e9: 16). It has no H100 below 760M: there A100's
times the ratio of both at 760M, 0.61.
"""


def published_mfu(device: str, parameters: int) -> float:
    """MFU of a model of that size (0 to 1): between the table's sizes on a logarithmic scale, beyond them the nearest's.

    A device that is not in the table has H100's, the lowest.
    """
    points = MFU.get(device, MFU["h100"])
    if parameters <= points[0][0]:
        return points[0][1]
    for (small, low), (large, high) in itertools.pairwise(points):
        if parameters <= large:
            return low + (high - low) * math.log(parameters / small) / math.log(large / small)
    return points[-1][1]


def peak_of(name: str) -> tuple[float, float] | None:
    """The entry for a device's name as torch gives it ("NVIDIA H100 PCIe"); None if it is not in the table."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    names = [*map("".join, itertools.pairwise(words)), *words]
    return next((PEAKS[each] for each in names if each in PEAKS), None)
