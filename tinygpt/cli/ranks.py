"""`torchrun -m tinygpt train`: rank 0 plans, locks, writes and talks; the others read what is stored and compute their share."""

import gc
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from tinygpt.errors import TinygptError, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.options import Call
    from tinygpt.config import TrainConfig
    from tinygpt.lm.ranks import Ranks


def count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Whether another process is rank 0."""
    return count() > 1 and os.environ["RANK"] != "0"


def check(command: str, train: "TrainConfig") -> None:
    """Refuse what several processes cannot do."""
    sequences, processes = train.batch_size * train.grad_accum_steps, count()
    if processes > 1 and command != "train":
        if follows():
            raise typer.Exit(UsageError.exit_code)
        hint = "type `tinygpt run --until build-dataset` first, then `train` under torchrun"
        raise UsageError(f"`{command}` is the work of one process; under torchrun there is only `train`", hint=hint)
    if sequences % processes:
        fitting = max(number for number in range(1, processes) if sequences % number == 0)
        hint = f"start {fitting} of them (`--nproc-per-node {fitting}`), or change `train.batch_size`"
        what = f"the {sequences} sequences of a step (batch_size x grad_accum_steps)"
        raise UsageError(f"{what} cannot be divided over {processes} processes", hint=hint)


@contextmanager
def joined(job: str | None = None) -> "Iterator[tuple[Ranks, str]]":
    """The ranks of this torchrun, connected within the block, and what rank 0 gave as `job`.

    Raises:
        TinygptError: on rank 0, if another process has ended; the others end without a word.
    """
    from tinygpt.lm.ranks import Ranks

    if count() == 1:
        yield Ranks(), ""
        return
    import torch
    import torch.distributed as dist

    try:
        store, rank, processes = next(dist.rendezvous("env://"))
        if job is not None:
            store.set("job", job)
        if torch.cuda.device_count() > (local := int(os.environ["LOCAL_RANK"])):
            torch.cuda.set_device(local)
        dist.init_process_group(store=store, rank=rank, world_size=processes)
        yield Ranks(rank, processes), store.get("job").decode()
        # DistributedDataParallel is part of a reference cycle and holds the process group, whose threads, if they live on, want
        # the interpreter's lock while it shuts down: now and then that aborts the process.
        gc.collect()
        dist.destroy_process_group()
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        if follows():
            raise typer.Exit(1) from error
        hint = "`tinygpt train --resume` continues from the last checkpoint"
        raise TinygptError(f"another of the {count()} processes that train together has ended", hint=hint) from error


def follow(call: "Call") -> None:
    """What a rank other than 0 does in place of the command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # ends the process also while it waits inside torch
    from tinygpt.config import Config
    from tinygpt.stages import train

    with joined() as (ranks, text):
        if not (job := json.loads(text)):
            return  # there is nothing to compute
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # rank 0 has it, too, and says when all stop
        store, config = call.store(), Config.model_validate_json(job["config"])
        inputs = {name: store.resolve(made) for name, made in job["inputs"].items()}
        train.follow(config, inputs, store.checkpoints("train", job["key"]).newest(), ranks)
