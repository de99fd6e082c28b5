"""How much the loss rises when a head is removed.

A picture of attention suggests what a head does; only removing the head shows how much it matters
(Olsson et al. 2022). Shapes: L layers, H heads, D = d_model / H.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from tinygpt.lm.evaluation import window_losses
from tinygpt.lm.model import GPT, Block
from tinygpt.lm.weights import Array


class HeadAblation(NamedTuple):
    """The loss without each head: its output is set to zero, everything else stays.

    Args:
        loss: of the whole model [nats per token].
        loss_increase: loss without the head minus `loss`, (L, H); above 0 where the head helps.
        standard_error: of the increase, over windows, (L, H); NaN if there is only one window.
        tokens: predicted tokens, over which every loss is the mean.
    """

    loss: float
    loss_increase: Array
    standard_error: Array
    tokens: int

    def rank(self, layer: int, head: int) -> int:
        """Rank of a head by loss increase; 1 is the most important head."""
        return 1 + int((self.loss_increase > self.loss_increase[layer, head]).sum())


def text_losses(model: GPT, token_ids: Sequence[int] | Array) -> Array:
    """Loss of each token of a text but the first, given the tokens before it in its window [nats].

    Args:
        model: on the CPU or an accelerator.
        token_ids: (T,).
    Returns:
        (T - 1,); empty for fewer than two tokens.
    """
    if len(token_ids) < 2:
        return np.zeros(0)
    return np.concatenate(list(window_losses(model, np.asarray(token_ids))))


@torch.no_grad()
def ablate_heads(model: GPT, tokens: Array) -> HeadAblation:
    """Measure the loss without each head in turn (zero ablation).

    Zeroing the columns of `attention.out.weight` that read a head gives exactly the model without
    that head.

    Args:
        model: a copy of it is changed; its own weights stay as they are.
        tokens: (N,) with N >= 2. Where they fill at least one window of context_length, those left
            over at the end are not used.
    """
    H = model.config.n_heads
    D = model.config.d_model // H
    width = min(model.config.context_length, len(tokens) - 1)
    windows = (len(tokens) - 1) // width
    text = tokens[: windows * width + 1]
    losses = text_losses(model, text)  # (windows * width,)

    ablated = copy.deepcopy(model)
    increases = []  # of each head: mean over each window, (windows,)
    for block in cast(list[Block], ablated.blocks):
        for head in range(H):
            columns = block.attention.out.weight[:, head * D : (head + 1) * D]
            original = columns.clone()
            columns.zero_()
            increase = text_losses(ablated, text) - losses
            increases.append(increase.reshape(windows, width).mean(-1))
            columns.copy_(original)
    by_window = np.stack(increases).reshape(model.config.n_layers, H, windows)
    standard_error = np.full(by_window.shape[:2], np.nan)
    if windows > 1:
        standard_error = by_window.std(-1, ddof=1) / math.sqrt(windows)
    return HeadAblation(float(losses.mean()), by_window.mean(-1), standard_error, len(losses))
