"""The feed-forward network in the fewest passes over memory: the same numbers as MLP's explicit path, sooner.

On a CPU its hidden layer is larger than the cache. So a few positions at a time go through both matrices and the GELU between
them, forward and backward. GELU's tanh form is x * sigmoid(2u), one exponential (Hendrycks & Gimpel 2016, §2).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.lm.products import add_product, product_dtype

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR
ROWS = 2048  # positions at a time: few enough for the cache, many enough for the matrix unit


def feed_forward(x: Tensor, up: nn.Linear, down: nn.Linear) -> Tensor:
    """down(GELU(up(x))), (B, T, C) -> (B, T, C); the products in the precision of the autocast region, if any."""
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _FeedForward.apply(x, up.weight, up.bias, down.weight, down.bias)  # type: ignore[no-any-return, no-untyped-call]
    return down(F.gelu(up(x), approximate="tanh"))  # type: ignore[no-any-return]


class _FeedForward(torch.autograd.Function):
    """Of the hidden layer the backward pass needs its values and GELU's slope, each (B * T, d_ff)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        up, up_bias, down, down_bias = (p.to(product_dtype(x)) for p in parameters)
        rows = x.flatten(0, -2).to(up.dtype)
        y, hidden = torch.empty_like(rows), rows.new_empty(len(rows), len(up))
        slope = torch.empty_like(hidden)
        for r, h, s, out in _pieces(rows, hidden, slope, y):
            gelu(torch.addmm(up_bias, r, up.T), h, s)
            torch.addmm(down_bias, h, down.T, out=out)
        ctx.save_for_backward(rows, up, down, hidden, slope)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        rows, up, down, hidden, slope = ctx.saved_tensors
        exact, grad_rows = torch.promote_types(up.dtype, torch.float32), torch.empty_like(rows)
        grad_up, grad_down = (torch.zeros_like(weight, dtype=exact) for weight in (up, down))
        grad_bias, grad_y = grad_up.new_zeros(len(up)), grad.flatten(0, -2)
        for r, h, s, g, out in _pieces(rows, hidden, slope, grad_y, grad_rows):
            add_product(grad_down, g.T, h)
            inner = torch.mm(g, down).mul_(s)  # d loss / d up(x)
            add_product(grad_up, inner.T, r)
            grad_bias += inner.sum(dim=0, dtype=exact)
            torch.mm(inner, up, out=out)
        return grad_rows.view(grad.shape), grad_up, grad_bias, grad_down, grad_y.sum(dim=0, dtype=exact)


def gelu(x: Tensor, y: Tensor, slope: Tensor) -> None:
    """Write GELU of each element into `y`, its derivative into `slope`."""
    linear = x.new_tensor(LINEAR)
    s = torch.addcmul(linear, x, x, value=CUBIC, out=slope).mul_(x).sigmoid_()
    torch.mul(x, s, out=y)
    inner = torch.addcmul(linear, x, x, value=3 * CUBIC)  # slope of what the sigmoid is taken of
    s.add_(torch.addcmul(y, y, s, value=-1).mul_(inner))  # s + x s (1 - s) inner


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """ROWS rows of all of them at a time, as views."""
    return zip(*(torch.split(tensor, ROWS) for tensor in tensors), strict=True)
