"""What torchrun puts into the environment of the processes that it starts. Imports no torch."""

import os

from tinygpt.errors import UsageError

NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")


def world_size() -> int:
    """How many processes train together; 1 without torchrun.

    Raises:
        UsageError: `WORLD_SIZE` is set, but not by torchrun.
    """
    if os.environ.get("WORLD_SIZE", "") in ("", "1"):
        return 1
    values = {name: os.environ.get(name, "") for name in (*NUMBERS, "MASTER_ADDR")}
    size = values["WORLD_SIZE"]
    not_set = [f"`{name}`" for name, value in values.items() if not value]
    wrong = [f"`{name}` = {values[name]}" for name in NUMBERS if not values[name].isdecimal()]
    if not_set:
        problem = f"without {', '.join(not_set)}"
    elif wrong:
        problem = f"with {', '.join(wrong)}"
    elif int(values["RANK"]) >= int(size):
        problem = f"with `RANK` = {values['RANK']}"
    else:
        return int(size)
    raise UsageError(
        f"`WORLD_SIZE` = {size} {problem} does not come from torchrun",
        hint="`unset WORLD_SIZE`, or start `torchrun --nproc-per-node 2 -m tinygpt train`",
    )


def is_follower() -> bool:
    """Whether another process is rank 0, which plans, locks, writes and prints."""
    return world_size() > 1 and os.environ["RANK"] != "0"
