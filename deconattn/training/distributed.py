"""One process or several: what torchrun's environment says, and how a model is spread over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deconattn.device import find_device
from deconattn.errors import UserError

Sharding = Literal["none", "full"]
PATIENCE = timedelta(
    hours=1
)  # processes wait for each other: for a checkpoint, or for a former owner of the run to leave
T = TypeVar("T")


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

    def lead(self, work: Callable[[], T]) -> T | None:
        """Do `work` in process 0 while the others wait; a `UserError` of it is raised in all.

        Returns what `work` returns, in process 0 only.
        """
        if self.world == 1:
            return work()
        result: T | None = None
        problem: list[str | None] = [None]
        if self.leads:
            try:
                result = work()
            except UserError as error:
                problem = [str(error)]
        dist.broadcast_object_list(problem, device=torch.device("cpu"))
        if problem[0]:
            raise UserError(problem[0])
        return result

    def any(self, wish: str | None) -> str | None:
        """This process' wish, or what another has wished, or None: the same in all but for the words."""
        if self.world == 1:
            return wish
        flag = torch.tensor([1 if wish else 0])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return (wish or "a wish of another process") if flag.item() else None

    def least(self, value: int) -> int:
        """The smallest of all processes' values."""
        if self.world == 1:
            return value
        values = torch.tensor([value])
        dist.all_reduce(values, op=dist.ReduceOp.MIN)
        return int(values.item())

    def summed(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value


@contextmanager
def process_group(device: str) -> Iterator[Process]:
    """Join the group that torchrun has made, or be alone; leave it at the end.

    Gradients go through nccl on GPUs and gloo on CPUs. What the processes agree on goes through gloo always: it
    neither waits for the GPU nor keeps it busy.
    """
    place, world = find_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = place.type == "cuda"
    if cuda:
        torch.cuda.set_device(place)
    if world == 1:
        yield Process(0, 1, place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Process(dist.get_rank(), world, place)
    finally:
        dist.destroy_process_group()


def shard(module: nn.Module, layers: nn.ModuleList, process: Process) -> None:
    """Spread weights, gradients and the optimiser's state over the processes (FSDP2, Zhao et al., 2023), a layer at a time.

    Weights travel in float32, as they are: the same arithmetic as without sharding, and so no part of a run's identity.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(process.device.type, (process.world,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def gather_weights(module: nn.Module) -> None:
    """Hold the sharded weights of all layers whole until each layer's next forward; nothing where they are not sharded."""
    for sharded in module.modules():
        if hasattr(sharded, "unshard"):
            cast(Any, sharded).unshard()


def replicate(module: nn.Module) -> nn.Module:
    """A copy of the module in each process, gradients averaged with the last backward of an update (DDP)."""
    from torch.nn.parallel import DistributedDataParallel

    # No buffer ever changes, so none is sent round before each forward.
    return DistributedDataParallel(module, gradient_as_bucket_view=True, forward_sync_buffers=False)


def exchange(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Around one micro-batch: gradients are exchanged with the `last` one of an update only."""
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
        cast(Any, module).set_requires_gradient_sync(last)
    elif not last and hasattr(module, "no_sync"):  # DDP
        return cast(Any, module).no_sync()
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor of all processes as one; every process must ask, in the same order."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """This process' part of a whole tensor that every process has read, spread and placed as `like` is."""
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        # src_data_rank None: each takes its part of what it has read itself, nothing is sent.
        spread = cast(Any, like)
        return distribute_tensor(tensor.to(like.device), spread.device_mesh, spread.placements, src_data_rank=None)
    return tensor.to(like.device)
