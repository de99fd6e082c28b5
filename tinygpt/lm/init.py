"""The weights that training starts from, drawn from the seed and the name of each parameter alone.

Two models that differ in one shape therefore share every other initial weight, and a comparison of
them compares the shape and not the luck of the draw.
"""

import hashlib
import math
from typing import cast

import torch
from torch import Tensor

from tinygpt.lm.model import GPT, Block

STD = 0.02


@torch.no_grad()
def init_weights(model: GPT, seed: int) -> GPT:
    """Initialize as GPT-2 does (Radford et al. 2019, §2.3), in place, and return the model.

    Matrices are drawn from N(0, 0.02); those that write into the residual stream are divided by
    sqrt(2 n_layers), so that its variance does not grow with depth. Biases are 0, LayerNorms the
    identity.

    With `model.weight_init` = "copying", attention's value matrix is orthogonal instead and its
    output matrix the transpose, so that heads start out adding the mean of the positions up to each
    (cf. Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention Layers"). To repeat a
    name they then only have to learn where to look. From random matrices they also have to learn
    what to copy, and neither is of use without the other.
    """
    residual_std = STD / math.sqrt(2 * model.config.n_layers)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            writes_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = residual_std if writes_residual else STD
            parameter.copy_(std * standard_normal(parameter.shape, seed, name))
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1)
    if model.config.weight_init == "copying":
        for layer, block in enumerate(cast(list[Block], model.blocks)):
            _start_by_copying(block, seed, layer)
    return model


def standard_normal(shape: torch.Size, seed: int, name: str) -> Tensor:
    """Numbers from N(0, 1), fp32, that depend on the shape, the seed and the name alone."""
    digest = hashlib.sha256(f"tinygpt.init {seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
    return torch.empty(shape).normal_(generator=generator)


def _start_by_copying(block: Block, seed: int, layer: int) -> None:
    _, _, value = block.attention.qkv.weight.chunk(3)  # (C, C)
    drawn = standard_normal(value.shape, seed, f"blocks.{layer}.attention.value")
    orthogonal, _ = torch.linalg.qr(drawn.double())
    value.copy_(orthogonal)
    block.attention.out.weight.copy_(orthogonal.T)
