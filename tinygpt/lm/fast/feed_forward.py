"""The feed-forward network in few passes over memory: the same numbers as MLP, faster.

On a CPU its hidden layer is larger than the cache. So a few positions at a time go through both
matrices and the GELU between them, forward and backward. GELU's tanh form, x / 2 (1 + tanh(u)), is
computed as x * sigmoid(2u), with one exponential (Hendrycks & Gimpel 2016, §2).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.lm.fast.matmul import accumulate_matmul, matmul_dtype

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR
ROWS = 2048  # positions at a time: few enough for the cache, many enough for the matrix unit


def feed_forward(x: Tensor, up: nn.Linear, down: nn.Linear) -> Tensor:
    """down(GELU(up(x))), (B, T, C) -> (B, T, C).

    Products have the precision of the surrounding autocast region, else of x.
    """
    training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if x.device.type == "cpu" and training:
        parameters = (up.weight, up.bias, down.weight, down.bias)
        return _FeedForward.apply(x, *parameters)  # type: ignore[no-any-return, no-untyped-call]
    return down(F.gelu(up(x), approximate="tanh"))  # type: ignore[no-any-return]


class _FeedForward(torch.autograd.Function):
    """Keeps the hidden layer and GELU's slope for the backward pass, each (B * T, d_ff)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        dtype = matmul_dtype(x)
        up, up_bias, down, down_bias = (p.to(dtype) for p in parameters)
        rows = x.flatten(0, -2).to(dtype)
        y = torch.empty_like(rows)
        hidden = rows.new_empty(len(rows), len(up))
        slope = torch.empty_like(hidden)
        for r, h, s, out in _pieces(rows, hidden, slope, y):
            gelu(torch.addmm(up_bias, r, up.T), h, s)
            torch.addmm(down_bias, h, down.T, out=out)
        ctx.save_for_backward(rows, up, down, hidden, slope)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        rows, up, down, hidden, slope = ctx.saved_tensors
        exact = torch.promote_types(up.dtype, torch.float32)
        grad_y = grad.flatten(0, -2)
        grad_rows = torch.empty_like(rows)
        grad_up = torch.zeros_like(up, dtype=exact)
        grad_up_bias = grad_up.new_zeros(len(up))
        grad_down = torch.zeros_like(down, dtype=exact)
        for r, h, s, g, out in _pieces(rows, hidden, slope, grad_y, grad_rows):
            accumulate_matmul(grad_down, g.T, h)
            grad_hidden = torch.mm(g, down).mul_(s)  # d loss / d up(x)
            accumulate_matmul(grad_up, grad_hidden.T, r)
            grad_up_bias += grad_hidden.sum(dim=0, dtype=exact)
            torch.mm(grad_hidden, up, out=out)
        grad_down_bias = grad_y.sum(dim=0, dtype=exact)
        return grad_rows.view(grad.shape), grad_up, grad_up_bias, grad_down, grad_down_bias


def gelu(x: Tensor, y: Tensor, slope: Tensor) -> None:
    """Write GELU of each element of x into `y` and its derivative into `slope`."""
    linear = x.new_tensor(LINEAR)
    s = torch.addcmul(linear, x, x, value=CUBIC, out=slope).mul_(x).sigmoid_()
    torch.mul(x, s, out=y)
    inner = torch.addcmul(linear, x, x, value=3 * CUBIC)  # slope of the sigmoid's argument
    s.add_(torch.addcmul(y, y, s, value=-1).mul_(inner))  # s + x s (1 - s) inner


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """ROWS rows of all tensors at a time, as views."""
    return zip(*(torch.split(tensor, ROWS) for tensor in tensors), strict=True)
