"""GELU in its tanh form (Hendrycks & Gimpel 2016), as GPT-2 has it, in less time on a CPU.

x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) is x times a sigmoid, since (1 + tanh(z)) / 2 = sigmoid(2z). PyTorch's kernel spends
its time on the tanh, forward and once more backward; the sigmoid is one exponential.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR


def gelu(x: Tensor) -> Tensor:
    """GELU of each element; the same shape and dtype."""
    if x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")  # one kernel that waits for memory, not for the tanh
    y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Gelu(torch.autograd.Function):
    """The slope is made where x, the sigmoid and the result are at hand, and is all that is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        s = torch.addcmul(x.new_tensor(LINEAR), x, x, value=CUBIC).mul_(x).sigmoid_()
        y = x * s
        if ctx.needs_input_grad[0]:
            inner = torch.addcmul(x.new_tensor(LINEAR), x, x, value=3 * CUBIC)  # slope of what the sigmoid is taken of
            ctx.save_for_backward(s.add_(torch.addcmul(y, y, s, value=-1).mul_(inner)))  # s + x s (1 - s) inner
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return grad * slope
