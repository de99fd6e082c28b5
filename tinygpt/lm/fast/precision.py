"""The device, the arithmetic and the compilation of a run.

Each is chosen by fixed rules on what the machine can do, never by a measurement.
"""

import ctypes
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

import torch

from tinygpt.errors import ConfigError
from tinygpt.lm.model import GPT, Block
from tinygpt.records import PrecisionName

# Of glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def prepare_cpu(threads: int | None) -> None:
    """Set PyTorch's number of threads, and make the process keep the memory that it frees.

    glibc returns large freed blocks to the system at once, and a training step needs the same ones
    again. They then fault in page after page, which takes a seventh of the step. Other C libraries
    are left as they are.

    Args:
        threads: None for PyTorch's default.
    """
    if threads:
        torch.set_num_threads(threads)
    with suppress(AttributeError):  # no mallopt, no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value that every glibc accepts


@dataclass(frozen=True)
class Precision:
    """The arithmetic of the matrix products, "fp32" or "bf16", and the reason for it."""

    name: PrecisionName
    reason: str


def choose_device(requested: str) -> torch.device:
    """The device of `runtime.device`; "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: the machine does not have the requested device.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if requested == "auto":
        return torch.device(available[0])
    if requested not in available:
        raise ConfigError(
            f"`runtime.device` = {requested} is not available; "
            f"this machine has {', '.join(available)}",
            hint="use `auto`",
        )
    return torch.device(requested)


def choose_precision(requested: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The arithmetic of `train.precision`; "auto" takes bf16 where the hardware multiplies it."""
    if requested != "auto":
        return Precision(requested, "as configured")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "this GPU multiplies bf16")
        return Precision("fp32", "this GPU does not multiply bf16")
    if device.type == "cpu":
        unit = _bf16_unit()
        if unit is not None:
            return Precision("bf16", f"this CPU has {unit}")
    return Precision("fp32", f"no bf16 unit that tinygpt knows on this {device.type}")


def _bf16_unit() -> str | None:
    """The part of this CPU that multiplies bf16; None if there is none, or it is switched off."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return None  # also where ATEN_CPU_CAPABILITY switches it off
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if torch.cpu._is_avx512_bf16_supported():
        return "avx512_bf16"
    return None


def compile_blocks(model: GPT, batch_size: int, precision: str) -> str:
    """Have torch.compile (Ansel et al. 2024) fuse the operations of the blocks.

    Args:
        model: changed in place, on the device where it trains.
        batch_size: sequences of a micro-batch.
        precision: "fp32" or "bf16".
    Returns:
        Why the blocks stay uncompiled; "" if they are compiled.
    """
    device = model.token_embedding.weight.device
    blocks = cast(list[Block], model.blocks)
    token_ids = torch.zeros(
        batch_size, model.config.context_length, dtype=torch.long, device=device
    )
    # Our caches hold constants only
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
    try:
        for block in blocks:
            # The masks depend on the step's number; without `dynamic` the first step would get a
            # program of its own
            block.compile(dynamic=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            model.hidden(token_ids).sum().backward()  # type: ignore[no-untyped-call]
    # All errors of torch.compile are RuntimeErrors: no compiler, a program that it cannot compile
    except RuntimeError as error:
        for block in blocks:
            block._compiled_call_impl = None
        return str(error).strip().splitlines()[0]
    finally:
        model.zero_grad()
    return ""
