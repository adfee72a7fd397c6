"""One process or several: what torchrun's environment says, and how a model is compiled and spread over them."""

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
from torch.nn import functional as F

from deconattn.decoder import LanguageModel
from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.layers import ChunkLoss, chunk_loss, head_loss

Sharding = Literal["none", "full"]
HANG = timedelta(minutes=10)  # a process that others have waited for this long, between two updates, hangs
PATIENCE = timedelta(hours=1)  # for what each does at its own speed, as compiling, and for work of process 0 alone
T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among those that train one model; a `patient` group waits an hour, whatever is expected of the others."""

    rank: int
    world: int
    device: torch.device
    patient: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def lead(self, work: Callable[[], T]) -> T:
        """Do `work` in process 0 while the others wait; all return its result, or raise its `UserError`."""
        if self.world == 1:
            return work()
        result: list[Any] = [None, None]
        if self.leads:
            try:
                result = [work(), None]
            except UserError as error:
                result = [None, str(error)]
        dist.broadcast_object_list(result, group=self.patient, device=torch.device("cpu"))
        if result[1]:
            raise UserError(result[1])
        return result[0]

    def any(self, reason: str | None) -> str | None:
        """The reason of the first process that has one, the same in all; None if none has one."""
        if self.world == 1:
            return reason
        flag = torch.tensor([1 if reason else 0])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        if not flag.item():
            return None
        reasons: list[str | None] = [None] * self.world
        dist.all_gather_object(reasons, reason)
        return next(filter(None, reasons))

    def expect(self, limit: timedelta) -> None:
        """From here on, a process that others have waited for longer than `limit` hangs: they end with an error."""
        if self.world > 1:
            dist.distributed_c10d._set_pg_timeout(limit)  # there is no public way

    def summed(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value


@contextmanager
def process_group(device: str) -> Iterator[Process]:
    """Join the group that torchrun has made, or be alone; leave it at the end.

    Gradients travel by NCCL on GPUs and by gloo on CPUs. Decisions always travel by gloo, which neither waits for the GPU
    nor keeps it busy.
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
        yield Process(dist.get_rank(), world, place, dist.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        dist.destroy_process_group()


class Loss(nn.Module):
    """The summed loss of a model as a module: what is replicated or sharded, in the precision of the spec.

    Matrix products are bf16 or float32; weights, gradients and all other arithmetic are float32. Once compiled, smaller batches
    are filled up to `batch` rows, whose loss is not counted, as each size of batch would be compiled anew. `scored` are the
    targets that count (`TokenTable.scored`).
    """

    def __init__(self, model: LanguageModel, precision: str, scored: slice = slice(None)) -> None:
        super().__init__()
        self.model, self.bf16, self.scored = model, precision == "bf16", scored
        self.batch = 0
        self.of_chunk: ChunkLoss = chunk_loss

    def forward(self, rows: Tensor) -> Tensor:
        """Summed cross-entropy, in nats, of rows (B, L)."""
        filled = F.pad(rows, (0, 0, 0, max(0, self.batch - len(rows))))
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.bf16):
            hidden = self.model.final_hidden(filled)[: len(rows), :-1][:, self.scored].flatten(0, 1)
            return head_loss(
                hidden, self.model.lm_head.weight, rows[:, 1:][:, self.scored].flatten(), "sum", self.of_chunk
            )

    def compile_parts(self, batch: int) -> None:
        """Compile each block, for batches of `batch` rows, and the loss of a chunk of the head's logits.

        A training takes a graph for each kind of layer, an evaluation two, as a side stream runs alone there.
        """
        # Imported when it is used: it loads the compiler.
        from torch._functorch import config

        # Eager backwards run outside of autocast; else the compiler would trace their float32 products as bf16.
        config.backward_pass_autocast = "off"
        torch._dynamo.config.recompile_limit = 64  # all blocks share one forward
        for block in self.model.model.layers:
            block.compile(dynamic=False)
        self.batch, self.of_chunk = batch, torch.compile(chunk_loss)


def parallelise(loss: Loss, process: Process, sharding: Sharding) -> nn.Module:
    """Spread the model over the processes: whole in each (DDP) or sharded (FSDP2).

    Weights and gradients travel in float32 either way, so that how a model is spread is no part of a run's identity.
    Sharding replaces the parameters: the optimiser is made afterwards.
    """
    if sharding == "full":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(process.device.type, (process.world,))
        for module in (*loss.model.model.layers, loss):
            fully_shard(module, mesh=mesh)
        return loss
    from torch.nn.parallel import DistributedDataParallel

    # No buffer ever changes, so none is sent before each forward.
    return DistributedDataParallel(loss, gradient_as_bucket_view=True, forward_sync_buffers=False)


def is_sharded(module: nn.Module) -> bool:
    """Whether `parallelise` has sharded the module."""
    return hasattr(module, "set_requires_gradient_sync")


def exchange(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Around one micro-batch: processes exchange gradients with the `last` one of an update only."""
    if is_sharded(module):
        cast(Any, module).set_requires_gradient_sync(last)
    elif not last and hasattr(module, "no_sync"):  # DDP
        return cast(Any, module).no_sync()
    return nullcontext()


def unshard(module: nn.Module) -> None:
    """Hold sharded weights whole until each layer's next forward; does nothing to weights that are not sharded."""
    for sharded in module.modules():
        if hasattr(sharded, "unshard"):
            cast(Any, sharded).unshard()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together; all processes must call it, in the same order."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor that every process has read, placed as `like` is."""
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        # src_data_rank None: each takes its part of what it has read itself, and nothing is sent.
        spread = cast(Any, like)
        return distribute_tensor(tensor.to(like.device), spread.device_mesh, spread.placements, src_data_rank=None)
    return tensor.to(like.device)
