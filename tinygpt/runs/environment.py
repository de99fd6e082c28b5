"""What the last bits of a run depend on besides its inputs, and how that has changed since."""

from collections.abc import Mapping

import torch

from tinygpt.lm.fast.precision import Precision


def environment(
    device: torch.device, precision: Precision, world_size: int, *, compiled: bool
) -> dict[str, str]:
    """What the last bits of a step depend on, besides its inputs."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": precision.name,
        "world_size": str(world_size),
        "compiled": str(compiled).lower(),
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Where an environment differs from a recorded one, e.g., "threads 1 -> 2".

    What was not recorded then does not count.
    """
    return [
        f"{name} {before[name]} -> {value}"
        for name, value in now.items()
        if before.get(name, value) != value
    ]
