"""Dropout whose masks are a function of where they are, not of what was drawn before.

A mask bit depends on (seed, step, sequence in the global batch, layer, place, position) alone, through a counter-based hash
(cf. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). So a resumed run, another micro-batch size or another
number of processes sees the same masks, on any device, and nothing has to be saved. On a CPU hashing integers is also many times
faster than drawing from PyTorch's Mersenne Twister.
"""

import functools
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


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

    p is rounded to a multiple of 2**-16.

    Args:
        x: activations, (B, ...), one row for each of `noise.sequences`.
        p: probability of a zero, 0 <= p < 1.
        noise: where the masks come from; None switches dropout off (evaluation, sampling).
        layer: index of the block; 0 for the embedding.
        place: where in the block.
    Returns:
        Same shape and dtype as x.
    """
    dropped = round(p * 65536)
    if noise is None or dropped == 0:
        return x
    per_sequence = x[0].numel()
    bits = _hash_block(noise.keys(layer, place), _counters((per_sequence + 1) // 2, x.device))  # (B, words) int32
    uniform = bits.view(torch.int16)[:, :per_sequence].view(x.shape)  # two 16-bit numbers in each word
    keep = (uniform >= dropped - 32768).to(x.dtype)
    return x * keep.mul_(65536 / (65536 - dropped))


@functools.lru_cache(maxsize=8)
def _counters(words: int, device: torch.device) -> Tensor:
    """0, 1, 2, ... spread over 32 bits by a Weyl sequence, (words,) int32."""
    spread = torch.arange(words, dtype=torch.int64, device=device) * 0x9E3779B1 % 2**32
    return (spread - 2**31).to(torch.int32)


def _hash_block(keys: Tensor, counters: Tensor) -> Tensor:
    """Hash every (key, counter) pair, (B, 1) and (words,) -> (B, words) int32."""
    return _mix32(keys + counters)


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
