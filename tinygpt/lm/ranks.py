"""Several processes that train one model together, each on its share of every step; one process alone is the default.

Gradients are averaged by PyTorch's DistributedDataParallel (Li et al. 2020). Batches and dropout masks depend on the index of a
sequence in the global batch alone, so that any number of ranks trains on the same sequences under the same masks.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a training run. Every method but micro_batches must be called by all of them.

    Args:
        rank: this one, from 0.
        count: how many there are.
        replica: the model, watched by DistributedDataParallel; None before `training` and where there is one process.
    """

    rank: int = 0
    count: int = 1
    replica: DistributedDataParallel | None = None

    def training(self, model: nn.Module) -> "Ranks":
        """Ready to average the gradients of `model`, whose weights become those of rank 0 everywhere."""
        if self.count == 1:
            return self
        replica = DistributedDataParallel(_Replica(model))
        # After its first backward pass it lays the gradients out anew, and with the layout the order changes in which they are
        # added up. With one pass before the first step, a run that continues adds like one that was never stopped.
        replica(lambda model: torch.stack([p.sum() for p in model.parameters()]).sum()).backward()
        model.zero_grad()
        return replace(self, replica=replica)

    def micro_batches(self, sequences: int, size: int) -> Iterator[range]:
        """The places in the global batch that this process computes, `size` at a time.

        While the last ones are in the caller's hands, the backward pass averages the gradients over all ranks.
        """
        share = sequences // self.count
        mine = range(sequences)[self.rank * share :][:share]
        parts = [mine[start : start + size] for start in range(0, share, size)]
        with self.replica.no_sync() if self.replica else nullcontext():
            yield from parts[:-1]
        yield parts[-1]

    def loss(self, function: Callable[..., Tensor], model: nn.Module, *batch: object) -> Tensor:
        """function(model, *batch), in a way that DistributedDataParallel sees."""
        return self.replica(function, *batch) if self.replica else function(model, *batch)

    def sum(self, values: Tensor) -> Tensor:
        """The values of all ranks added up, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def led(self, value: int = 0) -> int:
        """The value of rank 0."""
        return int(self.sum(torch.tensor(int(value) if self.rank == 0 else 0)))


ALONE = Ranks()


class _Replica(nn.Module):
    """Any function of the model as the forward pass of a module, which is what DistributedDataParallel can watch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def named_buffers(self, *_: Any, **__: Any) -> Iterator[tuple[str, Tensor]]:
        return iter(())  # causal masks and sinusoids never change, and need not be sent round

    def forward(self, function: Callable[..., Tensor], *batch: Any) -> Tensor:
        return function(self.model, *batch)
