"""Causal attention in the fewest passes over memory: the same numbers as CausalSelfAttention's explicit path, sooner."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.lm.noise import Noise, Place, dropout_scale, keep_mask, keep_only

ROWS = 128  # queries in a block: the fewer, the less is computed behind the diagonal; the more, the fuller the matrix unit


def causal_attention(q: Tensor, k: Tensor, v: Tensor, p: float, noise: Noise | None, layer: int) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v over the positions up to each.

    Args:
        q, k, v: (B, H, T, D).
        p: dropout of the attention weights, where `noise` is given.
        noise, layer: see tinygpt.lm.noise.
    Returns:
        (B, H, T, D).
    """
    masks: list[Tensor] = []
    if noise is not None and p > 0:
        *outer, T, _ = q.shape
        place, shape = Place.ATTENTION, torch.Size((*outer, T, T))
        masks = [keep_mask(shape, p, noise, layer, place, rows).flatten(0, 1) for rows in _blocks(q)]
        v = v * dropout_scale(p)
    elif q.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)  # whose backward pass is slow on a CPU
    with torch.autocast(q.device.type, enabled=False):  # its softmax would go to fp32 and back
        y: Tensor = _CausalAttention.apply(*(x.flatten(0, 1) for x in (q, k, v)), *masks)  # type: ignore[no-untyped-call]
    return y.view(q.shape)


class _CausalAttention(torch.autograd.Function):
    """Blocks of queries, each with the keys up to its last; q, k, v: (B*H, T, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *masks: Tensor) -> Tensor:
        T, D = q.shape[1:]
        y, bias, ctx.scale = torch.empty_like(v), _causal_bias(T, q.dtype, q.device), 1 / math.sqrt(D)
        kept, blocks = [], _blocks(q)
        for rows, mask in zip(blocks, masks or [None] * len(blocks), strict=True):
            seen = slice(rows.stop)
            scores = torch.baddbmm(bias[rows, seen], q[:, rows], k[:, seen].mT, alpha=ctx.scale)  # (B*H, rows, seen)
            kept.append(scores.softmax(dim=-1))
            y[:, rows] = torch.bmm(keep_only(kept[-1], mask), v[:, seen])
        ctx.save_for_backward(q, k, v, y, *kept, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *saved = ctx.saved_tensors
        blocks = _blocks(q)
        kept, masks = saved[: len(blocks)], saved[len(blocks) :]
        # d loss / d scores = weights * (d loss / d weights - its mean by these weights), and that mean is grad . y
        mean = (grad * y).sum(dim=-1, keepdim=True)  # (B*H, T, 1); Dao et al. 2022, FlashAttention, §B.2
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows, weights, mask in zip(blocks, kept, masks or [None] * len(blocks), strict=True):
            seen, g = slice(rows.stop), grad[:, rows]
            grad_v[:, seen].add_(torch.bmm(keep_only(weights, mask).mT, g))
            if mask is None:
                slope = torch.baddbmm(mean[:, rows], g, v[:, seen].mT, beta=-1)
            else:
                slope = keep_only(torch.bmm(g, v[:, seen].mT), mask).sub_(mean[:, rows])
            slope.mul_(weights)  # d loss / d scores
            grad_k[:, seen].add_(torch.bmm(slope.mT, q[:, rows]))
            grad_q[:, rows] = torch.bmm(slope, k[:, seen])
        return grad_q.mul_(ctx.scale), grad_k.mul_(ctx.scale), grad_v, *(None for _ in masks)


def _blocks(q: Tensor) -> list[slice]:
    """The queries, (..., T, D), in blocks; on a GPU in one, since a kernel more costs more than what lies behind."""
    length = q.shape[-2]
    rows = ROWS if q.device.type == "cpu" else length
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 on and below the diagonal, -inf above, (length, length)."""
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu(1)
