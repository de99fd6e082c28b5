"""Matrix products of backward passes written by hand: their precision and their summation."""

import torch
from torch import Tensor


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The precision of products with `x`: the surrounding autocast region's, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def accumulate_matmul(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; products in bf16 are rounded first, then summed in fp32."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
