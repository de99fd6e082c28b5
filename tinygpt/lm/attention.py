"""Causal attention in the fewest passes over memory: the same numbers as CausalSelfAttention's explicit path, sooner."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.lm.noise import Noise, Place, dropout_scale, masked


def causal_attention(q: Tensor, k: Tensor, v: Tensor, p: float, noise: Noise | None, layer: int) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v over the positions up to each.

    Args:
        q, k, v: (B, H, T, D).
        p: dropout of the attention weights, where `noise` is given.
        noise, layer: see tinygpt.lm.noise.
    Returns:
        (B, H, T, D).
    """
    no_dropout = noise is None or p == 0
    # PyTorch's flash kernel for CPUs has no dropout, and its backward pass in bf16 takes three times as long as what follows
    if no_dropout and not (q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    B, H, T, D = q.shape
    with torch.autocast(q.device.type, enabled=False):  # its softmax would go to fp32 and back
        scaled, bias = (q * (1 / math.sqrt(D))).reshape(B * H, T, D), _causal_bias(T, q.dtype, q.device)
        scores = torch.baddbmm(bias, scaled, k.reshape(B * H, T, D).mT)  # (B*H, T, T)
        weights = scores.softmax(dim=-1).view(B, H, T, T)
        if noise is not None and p > 0:
            weights, v = masked(weights, p, noise, layer, Place.ATTENTION), v * dropout_scale(p)
        return weights @ v


@functools.lru_cache(maxsize=16)
def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 on and below the diagonal, -inf above, (length, length)."""
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu(1)
