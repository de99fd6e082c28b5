"""`torchrun -m tinygpt train`: rank 0 plans, locks, writes and talks.

The other processes read what is stored and compute their share.
"""

import json
import signal
from typing import TYPE_CHECKING

import typer

from tinygpt.cli.signals import HANDLED
from tinygpt.errors import LostProcessError, UsageError
from tinygpt.lm.fast.torchrun import is_follower, world_size

if TYPE_CHECKING:
    from tinygpt.config import TrainConfig
    from tinygpt.store import Store


def check(command: str, train: "TrainConfig") -> None:
    """Refuse what several processes cannot do."""
    processes = world_size()
    if processes > 1 and command != "train":
        if is_follower():
            raise typer.Exit(UsageError.exit_code)
        raise UsageError(
            f"`{command}` runs in one process; torchrun is for `train` alone",
            hint="type `tinygpt run --until build-dataset` first, then `train` under torchrun",
        )
    sequences = train.batch_size * train.grad_accum_steps
    if sequences % processes:
        fitting = max(number for number in range(1, processes) if sequences % number == 0)
        hint = f"start {fitting} (`--nproc-per-node {fitting}`), or change `train.batch_size`"
        what = f"the {sequences} sequences of a step (batch_size x grad_accum_steps)"
        raise UsageError(f"{what} cannot be divided over {processes} processes", hint=hint)


def dismiss_followers() -> None:
    """Tell the other processes, if there are any, that there is nothing to compute."""
    if world_size() > 1:
        from tinygpt.lm.fast.distributed import join_torchrun

        with join_torchrun("null"):
            pass


def follow(store: "Store") -> None:
    """Run the command in a process other than rank 0: wait for its job, then train along."""
    handled = [number for number in HANDLED if signal.getsignal(number) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, signal.SIG_DFL)  # ends the process also while it waits inside torch
    from tinygpt.config import Config
    from tinygpt.lm.fast.distributed import join_torchrun
    from tinygpt.stages import train

    try:
        with join_torchrun() as (processes, text):
            job = json.loads(text)
            if not job:
                return  # there is nothing to compute
            for number in handled:
                signal.signal(number, signal.SIG_IGN)  # rank 0 gets it, too, and stops all
            config = Config.model_validate_json(job["config"])
            inputs = {name: store.resolve(made) for name, made in job["inputs"].items()}
            unfinished = store.unfinished_run("train", job["key"])
            train.follow(config, inputs, unfinished, processes)
    except LostProcessError as error:
        raise typer.Exit(LostProcessError.exit_code) from error  # rank 0 says it
