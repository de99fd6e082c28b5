"""Matrix products where backward passes are written by hand: in which precision, and how they are summed."""

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision of products with `x`: that of the surrounding autocast region, else its own."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; products in bf16 are rounded before they are summed, but summed in fp32."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
