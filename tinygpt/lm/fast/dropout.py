"""Dropout whose masks depend on where they are applied, not on what was drawn before.

A mask bit depends only on (seed, step, sequence in the global batch, layer, site, position),
through a counter-based hash (cf. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"). A resumed run, another micro-batch size and another number of processes therefore see the same
masks, on any device, and nothing has to be saved. On a CPU hashing integers is also many times
faster than drawing from PyTorch's Mersenne Twister.
"""

import functools
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

_STEPS = 2**15  # values of a random number


class DropoutSite(IntEnum):
    """Where in the model a mask is applied."""

    EMBEDDING = 0
    ATTENTION = 1
    ATTENTION_OUT = 2
    MLP_OUT = 3


@dataclass(frozen=True)
class DropoutKey:
    """What the masks of one forward pass depend on.

    Args:
        seed: of the run.
        step: optimizer step.
        sequences: index of each sequence in the step's global batch, (B,) int64, on the model's
            device.
    """

    seed: int
    step: int
    sequences: Tensor

    def keys(self, layer: int, site: DropoutSite) -> Tensor:
        """One 32-bit key for each sequence, (B, 1) int32."""
        of_step = _mix64(_mix64(self.seed) + self.step)
        where = _mix64(of_step + layer * len(DropoutSite) + site)
        low = _mix32((self.sequences + where % 2**31).to(torch.int32))
        return low.unsqueeze(1) ^ _signed32(where >> 32)


def dropout(x: Tensor, p: float, key: DropoutKey | None, layer: int, site: DropoutSite) -> Tensor:
    """Zero each element with probability p and scale the rest by 1/(1-p) (Srivastava et al. 2014).

    p is rounded to a multiple of 2**-15.

    Args:
        x: activations, (B, ...), one row for each of `key.sequences`.
        p: probability of a zero, 0 <= p < 1.
        key: where the masks come from; None switches dropout off (evaluation, sampling).
        layer: index of the block; 0 for the embedding.
        site: where in the block.
    Returns:
        Same shape and dtype as x.
    """
    if key is None or p == 0:
        return x
    mask = keep_mask(x.shape, p, key, layer, site)
    kept: Tensor = _Masked.apply(x, mask)  # type: ignore[no-untyped-call]
    return kept * dropout_scale(p)


def keep_mask(
    shape: torch.Size,
    p: float,
    key: DropoutKey,
    layer: int,
    site: DropoutSite,
    rows: slice | None = None,
) -> Tensor:
    """A mask in int16: -1 (all bits set) where an element is kept, 0 where it is dropped.

    Args:
        shape: of what is masked, (B, ...).
        p, key, layer, site: see dropout.
        rows: only these of the second to last dimension, with the columns up to their end; None for
            all.
    """
    *outer, width = shape[1:]
    words = (width + 1) // 2  # of 32 bits, each of which holds two random numbers
    counters = _counters(math.prod(outer), words, key.sequences.device).view(*outer, -1)
    if rows:
        counters = counters[..., rows, : (rows.stop + 1) // 2]
        width = rows.stop
    keys = key.keys(layer, site).view(-1, *[1] * counters.dim())
    bits = _mix32(keys + counters)  # int32, a hash of each (key, counter)
    uniform = bits.view(torch.int16)[..., :width].bitwise_and_(_STEPS - 1)
    return torch.sub(_dropped(p) - 1, uniform).bitwise_right_shift_(15)


def keep_only(x: Tensor, mask: Tensor | None) -> Tensor:
    """x where the mask has ones, else 0; x itself without a mask.

    It works on the bits, without a conversion or a multiplication.
    """
    if mask is None:
        return x
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return (x.view(integer) & mask.to(integer)).view(x.dtype)


def dropout_scale(p: float) -> float:
    """The factor for the kept elements, which preserves the mean."""
    return _STEPS / (_STEPS - _dropped(p))


def _dropped(p: float) -> int:
    return round(p * _STEPS)


class _Masked(torch.autograd.Function):
    """keep_only, applied to the gradient as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return keep_only(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return keep_only(grad, mask), None


@functools.lru_cache(maxsize=8)
def _counters(rows: int, words: int, device: torch.device) -> Tensor:
    """0, 1, 2, ... spread over 32 bits by a Weyl sequence, (rows * words,) int32."""
    spread = torch.arange(rows * words, dtype=torch.int64, device=device) * 0x9E3779B1 % 2**32
    return (spread - 2**31).to(torch.int32)


def _mix32(x: Tensor) -> Tensor:
    """The finalizer `lowbias32` (Wellons 2018) on int32, in place.

    PyTorch shifts arithmetically; the bit masks turn that into logical shifts.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x ^= (x >> shift).bitwise_and_(2 ** (32 - shift) - 1)
        x *= factor
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def _mix64(x: int) -> int:
    """The finalizer of splitmix64 (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def _signed32(x: int) -> int:
    """The 32 bits of x as a signed number."""
    return (x + 2**31) % 2**32 - 2**31
