"""Dropout whose masks are a function of where they are, not of what was drawn before.

A mask bit depends on (seed, step, sequence in the global batch, layer, place, position) alone, through a counter-based hash
(cf. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). So a resumed run, another micro-batch size or another
number of processes sees the same masks, on any device, and nothing has to be saved. On a CPU hashing integers is also many times
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


class Place(IntEnum):
    """Where in the model a mask is applied."""

    EMBEDDING = 0
    ATTENTION = 1
    ATTENTION_OUT = 2
    MLP_OUT = 3


@dataclass(frozen=True)
class Noise:
    """What the masks of one forward pass depend on.

    Args:
        seed: of the run.
        step: optimizer step.
        sequences: index of each sequence in the step's global batch, (B,) int64, on the model's device.
    """

    seed: int
    step: int
    sequences: Tensor

    def keys(self, layer: int, place: Place) -> Tensor:
        """One 32-bit key for each sequence, (B, 1) int32."""
        where = _mix64(_mix64(_mix64(self.seed) + self.step) + layer * len(Place) + place)
        return _mix32((self.sequences + where % 2**31).to(torch.int32)).unsqueeze(1) ^ _signed32(where >> 32)


def dropout(x: Tensor, p: float, noise: Noise | None, layer: int, place: Place) -> Tensor:
    """Zero each element with probability p and scale the rest by 1/(1-p) (Srivastava et al. 2014).

    p is rounded to a multiple of 2**-15.

    Args:
        x: activations, (B, ...), one row for each of `noise.sequences`.
        p: probability of a zero, 0 <= p < 1.
        noise: where the masks come from; None switches dropout off (evaluation, sampling).
        layer: index of the block; 0 for the embedding.
        place: where in the block.
    Returns:
        Same shape and dtype as x.
    """
    if noise is None or p == 0:
        return x
    kept: Tensor = _Masked.apply(x, keep_mask(x.shape, p, noise, layer, place))  # type: ignore[no-untyped-call]
    return kept * dropout_scale(p)


def keep_mask(shape: torch.Size, p: float, noise: Noise, layer: int, place: Place, rows: slice | None = None) -> Tensor:
    """All bits set where an element is kept and none where it is dropped, int16.

    Args:
        shape: of what is masked, (B, ...).
        rows: of the last two dimensions, only these rows, and the columns up to their end; None for all.
        p, noise, layer, place: see dropout.
    """
    *outer, width = shape[1:]
    counters = _counters(math.prod(outer), (width + 1) // 2, noise.sequences.device).view(*outer, -1)
    if rows:
        counters, width = counters[..., rows, : (rows.stop + 1) // 2], rows.stop
    bits = _mix32(noise.keys(layer, place).view(-1, *[1] * counters.dim()) + counters)  # int32, a hash of each (key, counter)
    uniform = bits.view(torch.int16)[..., :width].bitwise_and_(_STEPS - 1)  # two 15-bit numbers in each word
    return torch.sub(_dropped(p) - 1, uniform).bitwise_right_shift_(15)


def keep_only(x: Tensor, mask: Tensor | None) -> Tensor:
    """x where the mask has ones, else 0, by bits: no conversion, no multiplication; x itself without a mask."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x if mask is None else (x.view(integer) & mask.to(integer)).view(x.dtype)


def dropout_scale(p: float) -> float:
    """What the kept elements are multiplied by, so that the mean stays."""
    return _STEPS / (_STEPS - _dropped(p))


def _dropped(p: float) -> int:
    return round(p * _STEPS)


class _Masked(torch.autograd.Function):
    """keep_only, also of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return keep_only(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return keep_only(grad, *ctx.saved_tensors), None


@functools.lru_cache(maxsize=8)
def _counters(rows: int, words: int, device: torch.device) -> Tensor:
    """0, 1, 2, ... spread over 32 bits by a Weyl sequence, (rows * words,) int32."""
    spread = torch.arange(rows * words, dtype=torch.int64, device=device) * 0x9E3779B1 % 2**32
    return (spread - 2**31).to(torch.int32)


def _mix32(x: Tensor) -> Tensor:
    """The finaliser `lowbias32` (Wellons 2018) on int32, in place; the mask makes PyTorch's arithmetic shift a logical one."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x ^= (x >> shift).bitwise_and_(2 ** (32 - shift) - 1)
        x *= factor
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def _mix64(x: int) -> int:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def _signed32(x: int) -> int:
    """The 32 bits of x as a signed number."""
    return (x + 2**31) % 2**32 - 2**31
