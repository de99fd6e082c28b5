"""Causal attention in few passes over memory: the same numbers as CausalSelfAttention, faster."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.lm.fast.dropout import (
    DropoutKey,
    DropoutSite,
    dropout_scale,
    keep_mask,
    keep_only,
)

# Queries in a block. Fewer of them waste less work above the diagonal; more of them fill the matrix
# unit better.
ROWS = 128


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, p: float, key: DropoutKey | None, layer: int
) -> Tensor:
    """Attention of each query to the positions up to its own, softmax(q k^T / sqrt(D)) v.

    Args:
        q: (B, H, T, D).
        k, v: (B, H, S, D); S > T where a KV cache holds positions before those of q.
        p: dropout of the attention weights where `key` is given, which needs S = T.
        key, layer: see tinygpt.lm.fast.dropout.
    Returns:
        (B, H, T, D).
    """
    T, S = q.shape[-2], k.shape[-2]
    if S > T:
        # A single new position is the last one: it sees everything
        mask = None if T == 1 else _visible(T, S, q.device)  # (T, S)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    masks: list[Tensor] = []
    values = v
    if key is not None and p > 0:
        square = torch.Size((*q.shape[:-1], T))  # (B, H, T, T)
        for rows in _blocks(q):
            mask = keep_mask(square, p, key, layer, DropoutSite.ATTENTION, rows)
            masks.append(mask.flatten(0, 1))
        values = v * dropout_scale(p)  # cheaper than scaling the weights
    elif q.device.type != "cpu" or not torch.is_grad_enabled():
        # PyTorch's own form; its backward pass is slow on a CPU
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    flat = [x.flatten(0, 1) for x in (q, k, values)]  # each (B*H, T, D)
    with torch.autocast(q.device.type, enabled=False):  # its softmax would go to fp32 and back
        y: Tensor = _CausalAttention.apply(*flat, *masks)  # type: ignore[no-untyped-call]
    return y.view(q.shape)


class _CausalAttention(torch.autograd.Function):
    """Attention by blocks of queries, each with the keys up to its last; q, k, v: (B*H, T, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *masks: Tensor) -> Tensor:
        T, D = q.shape[1:]
        scale = 1 / math.sqrt(D)
        y = torch.empty_like(v)
        bias = _causal_bias(T, q.dtype, q.device)
        kept: list[Tensor] = []
        for rows, mask in _with_masks(_blocks(q), masks):
            seen = slice(rows.stop)
            scores = torch.baddbmm(bias[rows, seen], q[:, rows], k[:, seen].mT, alpha=scale)
            weights = scores.softmax(dim=-1)  # (B*H, rows, seen)
            y[:, rows] = torch.bmm(keep_only(weights, mask), v[:, seen])
            kept.append(weights)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, y, *kept, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *saved = ctx.saved_tensors
        blocks = _blocks(q)
        kept = saved[: len(blocks)]
        masks = saved[len(blocks) :]
        # d loss / d scores = weights * (d loss / d weights - the mean of that under the weights),
        # and the mean is grad . y (Dao et al. 2022, FlashAttention, §B.2)
        mean = (grad * y).sum(dim=-1, keepdim=True)  # (B*H, T, 1)
        grad_q = torch.empty_like(q)
        grad_k = torch.zeros_like(k)
        grad_v = torch.zeros_like(v)
        for (rows, mask), weights in zip(_with_masks(blocks, masks), kept, strict=True):
            seen = slice(rows.stop)
            g = grad[:, rows]
            grad_v[:, seen].add_(torch.bmm(keep_only(weights, mask).mT, g))
            if mask is None:
                slope = torch.baddbmm(mean[:, rows], g, v[:, seen].mT, beta=-1)
            else:
                slope = keep_only(torch.bmm(g, v[:, seen].mT), mask).sub_(mean[:, rows])
            slope.mul_(weights)  # d loss / d scores
            grad_k[:, seen].add_(torch.bmm(slope.mT, q[:, rows]))
            grad_q[:, rows] = torch.bmm(slope, k[:, seen])
        no_masks = (None for _ in masks)
        return grad_q.mul_(ctx.scale), grad_k.mul_(ctx.scale), grad_v, *no_masks


def _blocks(q: Tensor) -> list[slice]:
    """The positions of the queries, (..., T, D), in blocks.

    A GPU takes all in one block: another kernel costs more there than the work above the diagonal.
    """
    length = q.shape[-2]
    rows = ROWS if q.device.type == "cpu" else length
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _with_masks(
    blocks: Sequence[slice], masks: Sequence[Tensor]
) -> list[tuple[slice, Tensor | None]]:
    """Each block with its mask, or with None where there is no dropout."""
    no_masks: Sequence[Tensor | None] = [None] * len(blocks)
    return list(zip(blocks, masks or no_masks, strict=True))


def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 on and below the diagonal, -inf above, (length, length)."""
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu(1)


def _visible(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which of the keys each of the queries, the last positions, sees: bool, (queries, keys)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
