"""The decoder that reads with the modules of lm/model.py: for GPUs, and for more than one core should do alone."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.lm.decoder import Decoder
from tinygpt.lm.model import GPT, Block, CausalSelfAttention
from tinygpt.lm.weights import Array


class TorchDecoder(Decoder):
    """The one for any device.

    Args:
        model: on the device where it is to read.
        max_sequences: the most sequences read side by side, B.
    """

    def __init__(self, model: GPT, *, max_sequences: int = 1) -> None:
        config, self.model = model.config, model
        shape = (config.n_layers, max_sequences, config.n_heads, config.context_length, config.d_model // config.n_heads)
        self.device = model.token_embedding.weight.device
        self.name = f"torch, {self.device.type}"
        super().__init__(config.context_length, *(torch.empty(shape, device=self.device) for _ in range(2)))

    @torch.inference_mode()
    def _read(self, token_ids: Array) -> Array:
        x = self.model.embed(torch.tensor(token_ids.tolist(), device=self.device), first=self.length)  # (B, T, C)
        for block, keys, values in zip(cast(list[Block], self.model.blocks), self.keys, self.values, strict=True):
            remembered = keys[: len(x)], values[: len(x)], self.length
            if block.pre_norm:  # as in Block.forward
                x = x + _attention(block.attention, block.norm_1(x), *remembered)
                x = x + block.mlp(block.norm_2(x))
            else:
                x = block.norm_1(x + _attention(block.attention, x, *remembered))
                x = block.norm_2(x + block.mlp(x))
        return self.model.unembed(self.model.norm(x[:, -1])).cpu().numpy()  # type: ignore[no-any-return]


def _attention(attention: CausalSelfAttention, x: Tensor, keys: Tensor, values: Tensor, old: int) -> Tensor:
    """CausalSelfAttention.forward of new positions, (B, T, C); their keys and values go behind the `old` ones."""
    S = old + x.shape[1]
    q, keys[:, :, old:S], values[:, :, old:S] = attention.heads(x)
    y = F.scaled_dot_product_attention(q, keys[:, :, :S], values[:, :, :S], attn_mask=attention.causal[old:S, :S])
    return attention.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
