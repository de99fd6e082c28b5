"""Cross-entropy of the next token: the textbook form, and one that never holds all logits.

With V = 8,000 the logits of 4,096 tokens and their gradient are 66 M numbers, more than all else in a small model together.
The fused form makes them a few rows at a time, takes loss and gradient from each piece while it is in the cache, and keeps
only the gradients of its inputs: the same mathematics in less time and memory (cf. Hsu et al. 2024, Liger Kernel;
Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.lm.model import GPT
from tinygpt.lm.noise import Noise
from tinygpt.lm.products import add_product, product_dtype

LossFunction = Callable[[GPT, Tensor, Tensor, Noise | None], Tensor]

CHUNK_LOGITS = 512 * 8_000  # held at a time: few enough for the cache, many enough for the matrix unit
COLUMNS = 1 << 10  # summed in the precision of the products, before their sums are added in fp32
SAFE_EXPONENT = 60.0  # exp of this, summed over 65,536 entries, is far from the largest fp32 and bf16 number


def plain_loss(model: GPT, token_ids: Tensor, targets: Tensor, noise: Noise | None = None) -> Tensor:
    """Mean cross-entropy in nats per token, as one would write it on a blackboard.

    Args:
        model: predicts the next token.
        token_ids: (B, T).
        targets: the token that follows each, (B, T).
        noise: where dropout masks come from; None for no dropout.
    Returns:
        A scalar.
    """
    logits = model(token_ids, noise)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def fused_loss(model: GPT, token_ids: Tensor, targets: Tensor, noise: Noise | None = None) -> Tensor:
    """The same number as plain_loss, in less time and memory."""
    hidden = model.hidden(token_ids, noise)  # (B, T, C)
    return linear_cross_entropy(hidden.flatten(0, 1), model.unembed.weight, targets.flatten())


LOSSES: dict[str, LossFunction] = {"plain": plain_loss, "fused": fused_loss}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of softmax(hidden @ weight.T), without ever holding (N, V).

    Args:
        hidden: (N, C).
        weight: (V, C).
        targets: (N,) int64.
    Returns:
        A scalar in fp32 (float64 for float64 inputs), whose gradient is right to the precision of the products: those of the
        surrounding autocast region, else of `hidden`.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in forward, where the probabilities are at hand; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = product_dtype(hidden)
        exact = torch.promote_types(dtype, torch.float32)
        x, w = hidden.to(dtype), weight.to(dtype)
        grad_x, grad_w = torch.empty_like(x), torch.zeros_like(weight, dtype=exact)
        losses = torch.empty((len(x), 1), dtype=exact, device=x.device)
        rows = min(len(x), max(1, CHUNK_LOGITS // len(w)))
        logits, every_row = x.new_empty(rows, len(w)), torch.arange(0, rows, device=x.device)
        shift_needed = x.device.type != "cpu" or not _largest_logit(x, w) < SAFE_EXPONENT
        for start in range(0, len(x), rows):
            part = slice(start, min(start + rows, len(x)))
            e = torch.mm(x[part], w.T, out=logits[: part.stop - start])  # logits, then their exponentials, (rows, V)
            if shift_needed:
                e.sub_(e.amax(dim=1, keepdim=True))
            at = every_row[: len(e)], targets[part]
            at_target = e[at].to(exact).unsqueeze(1)
            # a sum in fp32 would first copy all of e; those of 1,024 columns are rounded, which averages out
            sums = [columns.sum(dim=1) for columns in torch.split(e.exp_(), COLUMNS, dim=1)]
            total = torch.stack(sums, dim=1).sum(dim=1, keepdim=True, dtype=exact)
            losses[part] = total.log() - at_target
            # d loss / d logits = (softmax - one-hot) / N; the division by `total` and N is left to the narrow matrices
            e[at] = (at_target.exp() - total).to(dtype).squeeze(1)  # scatter_ would copy all of e twice
            share = 1 / (total * len(x))
            torch.mm(e, w, out=grad_x[part]).mul_(share)
            add_product(grad_w, e.T, (x[part] * share).to(dtype))
        ctx.save_for_backward(grad_x, grad_w)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_w = ctx.saved_tensors
        return grad_x * grad_loss, grad_w * grad_loss, None


def _largest_logit(x: Tensor, w: Tensor) -> float:
    """A bound on every element of x @ w.T (Cauchy-Schwarz)."""
    return float(x.float().norm(dim=1).max() * w.float().norm(dim=1).max())
