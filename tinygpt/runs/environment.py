"""What the last bits of a run depend on besides its inputs, and how that has changed since."""

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

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
        "cpu": cpu_model(),
        "mkl": _mkl_version(),
        "mkl_settings": _mkl_settings(),
        "precision": precision.name,
        "world_size": str(world_size),
        "compiled": str(compiled).lower(),
    }


def cpu_model() -> str:
    """What CPU this is, as far as the system says it."""
    with suppress(OSError, KeyError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        facts = dict(re.findall(r"(?m)^(.+?)\s*: (.*)$", text))
        # Virtual machines may name the maker alone
        return f"{facts['model name']} ({facts['cpu family']}/{facts['model']})"
    return platform.processor() or platform.machine()


def _mkl_version() -> str:
    """Of the library that multiplies matrices; its kernels depend on the model of the CPU, too."""
    match = re.search(r"Math Kernel Library Version (\S+)", torch.__config__.show())
    return match[1] if match else "none"


def _mkl_settings() -> str:
    """The settings in the environment on which the choice of kernels depends."""
    chosen = [name for name in sorted(os.environ) if name.startswith(("MKL_", "ONEDNN_", "DNNL_"))]
    return " ".join(f"{name}={os.environ[name]}" for name in chosen) or "none"


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Where an environment differs from a recorded one, e.g., "threads 1 -> 2".

    What was not recorded then does not count.
    """
    return [
        f"{name} {before[name]} -> {value}"
        for name, value in now.items()
        if before.get(name, value) != value
    ]
