"""One process or several: what torchrun's environment says, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from deconattn.device import find_device


@dataclass(frozen=True)
class Process:
    """This process among those that train one model."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


@contextmanager
def process_group(device: str) -> Iterator[Process]:
    """Join the group that torchrun has made (gloo on CPUs, nccl on GPUs), or be alone; leave it at the end."""
    place, world = find_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = place.type == "cuda"
    if cuda:
        torch.cuda.set_device(place)
    if world == 1:
        yield Process(0, 1, place)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Process(dist.get_rank(), world, place)
    finally:
        dist.destroy_process_group()


def summed(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes (the value itself when alone)."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
