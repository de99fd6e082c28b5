"""Several processes that train one model together, each on its share of every step.

PyTorch's DistributedDataParallel averages the gradients (Li et al. 2020). Batches and dropout masks
depend only on the index of a sequence in the global batch, so any number of processes trains on the
same sequences under the same masks.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinygpt.errors import LostProcessError
from tinygpt.lm.fast.torchrun import world_size


@dataclass(frozen=True)
class DataParallelGroup:
    """The processes that share a training run, as one of them sees them.

    All of them must call every method except micro_batches.

    Args:
        rank: number of this process, from 0.
        world_size: number of processes.
        replica: the model, watched by DistributedDataParallel; None before `wrap`, and where there
            is one process.
    """

    rank: int = 0
    world_size: int = 1
    replica: DistributedDataParallel | None = None

    def wrap(self, model: nn.Module) -> "DataParallelGroup":
        """This group, ready to average the gradients of `model`.

        The models of all processes get the weights of rank 0.
        """
        if self.world_size == 1:
            return self
        replica = DistributedDataParallel(_Replica(model))
        # After its first backward pass it rearranges the gradients, which changes the order in
        # which they are added up. With one pass before the first step, a resumed run adds them in
        # the same order as one that was never stopped.
        replica(lambda model: torch.stack([p.sum() for p in model.parameters()]).sum()).backward()
        model.zero_grad()
        return replace(self, replica=replica)

    def micro_batches(self, sequences: int, size: int) -> Iterator[range]:
        """The places in the global batch that this process computes, `size` at a time.

        The backward pass of the last ones averages the gradients over all processes.
        """
        share = sequences // self.world_size
        mine = range(self.rank * share, (self.rank + 1) * share)
        parts = [mine[start : start + size] for start in range(0, share, size)]
        with self.replica.no_sync() if self.replica else nullcontext():
            yield from parts[:-1]
        yield parts[-1]

    def loss(self, function: Callable[..., Tensor], model: nn.Module, *batch: object) -> Tensor:
        """function(model, *batch), called in a way that DistributedDataParallel sees."""
        return self.replica(function, *batch) if self.replica else function(model, *batch)

    def sum(self, values: Tensor) -> Tensor:
        """The values of all processes added up, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast_from_rank_0(self, value: int = 0) -> int:
        """The value that rank 0 passes; those of the others are ignored."""
        return int(self.sum(torch.tensor(int(value) if self.rank == 0 else 0)))


SINGLE_PROCESS = DataParallelGroup()


class _Replica(nn.Module):
    """Any function of the model as a module's forward, which DistributedDataParallel can watch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def named_buffers(self, *_: Any, **__: Any) -> Iterator[tuple[str, Tensor]]:
        return iter(())  # causal masks and sinusoids never change and need not be broadcast

    def forward(self, function: Callable[..., Tensor], *batch: Any) -> Tensor:
        return function(self.model, *batch)


@contextmanager
def join_torchrun(job: str | None = None) -> Iterator[tuple[DataParallelGroup, str]]:
    """Connect the processes that torchrun started, for the length of a `with` block.

    Args:
        job: on rank 0, what the other processes have to do; None on the others.
    Yields:
        The group, and the job; without torchrun a single process and "".
    Raises:
        LostProcessError: another of the processes has ended.
        UsageError: see world_size.
    """
    processes = world_size()
    if processes == 1:
        yield SINGLE_PROCESS, ""
        return
    try:
        store, rank, _ = next(dist.rendezvous("env://"))
        if job is not None:
            store.set("job", job)
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank < torch.cuda.device_count():
            torch.cuda.set_device(local_rank)
        dist.init_process_group(store=store, rank=rank, world_size=processes)
        yield DataParallelGroup(rank, processes), store.get("job").decode()
        # DistributedDataParallel is part of a reference cycle and keeps the process group alive.
        # The group's threads would ask for the interpreter's lock while it shuts down, which now
        # and then aborts the process.
        gc.collect()
        dist.destroy_process_group()
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        raise LostProcessError(
            f"another of the {processes} processes that train together has ended",
            hint="`tinygpt train --resume` continues from the last checkpoint",
        ) from error
