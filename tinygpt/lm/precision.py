"""Where to compute, in what arithmetic, and compiled or not: fixed rules on the machine's capabilities, never a measurement."""

import ctypes
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import torch

from tinygpt.errors import ConfigError
from tinygpt.lm.model import GPT, Block

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def prepare_cpu(threads: int | None) -> None:
    """Let PyTorch use `threads` threads (None for its default), and the process keep the memory that it frees.

    glibc gives large freed blocks back to the system at once, and a training step needs the same ones again: page after page
    faults in, which takes a seventh of the step. Other C libraries are left as they are.
    """
    if threads:
        torch.set_num_threads(threads)
    with suppress(AttributeError):  # no mallopt, no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most it takes everywhere


@dataclass(frozen=True)
class Precision:
    """The arithmetic of the matrix products, and why."""

    name: str
    reason: str


def choose_device(requested: str) -> torch.device:
    """The device of `runtime.device`; "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: the requested one is not there.
    """
    known = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, there in known.items() if there]
    if requested not in ("auto", *available):
        raise ConfigError(f"`runtime.device` = {requested} is not there; this machine has {', '.join(available)}", "use `auto`")
    return torch.device(available[0] if requested == "auto" else requested)


def choose_precision(requested: str, device: torch.device) -> Precision:
    """The arithmetic of `train.precision`; "auto" takes bf16 where the hardware multiplies it."""
    if requested != "auto":
        return Precision(requested, "as asked for")
    if device.type == "cuda":
        there = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16", "this GPU multiplies bf16") if there else Precision("fp32", "this GPU does not multiply bf16")
    if device.type == "cpu":
        found = {"amx": torch.cpu._is_amx_tile_supported(), "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
        units = [name for name, there in found.items() if there]
        if units and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # else switched off by ATEN_CPU_CAPABILITY
            return Precision("bf16", f"this CPU has {units[0]}")
    return Precision("fp32", f"no bf16 unit that tinygpt knows on this {device.type}")


def compile_blocks(model: GPT, batch_size: int, precision: str) -> str:
    """Have torch.compile (Ansel et al. 2024) fuse what the blocks compute; returns why it cannot, or nothing."""
    device, blocks = model.token_embedding.weight.device, cast(list[Block], model.blocks)
    tokens = torch.zeros(batch_size, model.config.context_length, dtype=torch.long, device=device)
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # ours hold constants alone
    try:
        for block in blocks:
            block.compile(dynamic=True)  # else the first step, whose number is in the masks, gets a program of its own
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            model.hidden(tokens).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # what all of torch.compile's are: no compiler, or a program that it cannot take
        for block in blocks:
            block._compiled_call_impl = None
        return str(error).strip().splitlines()[0]
    finally:
        model.zero_grad()
    return ""
