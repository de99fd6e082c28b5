"""Cross-entropy of the next token without ever holding all logits.

With V = 8,000 the logits of 4,096 tokens and their gradient are 66 M numbers, more than everything
else in a small model together. Here they are computed a few rows at a time. Loss and gradient are
taken from each piece while it is in the cache, and only the gradients of the inputs are kept: the
same mathematics in less time and memory (cf. Hsu et al. 2024, Liger Kernel; Wijmans et al. 2024,
Cut Your Losses in Large-Vocabulary Language Models).
"""

from typing import Any

import torch
from torch import Tensor

from tinygpt.lm.fast.matmul import accumulate_matmul, matmul_dtype

# Logits held at a time: few enough for the cache, many enough for the matrix unit
CHUNK_LOGITS = 512 * 8_000
# Columns summed in the precision of the products before their sums are added in fp32
COLUMNS = 1 << 10
# exp of this, summed over 65,536 entries, is far below the largest fp32 and bf16 number
SAFE_EXPONENT = 60.0


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of softmax(hidden @ weight.T), without ever holding (N, V).

    Args:
        hidden: (N, C).
        weight: (V, C).
        targets: (N,) int64.
    Returns:
        A scalar in fp32 (float64 for float64 inputs). Its gradient is as precise as the matrix
        products, which have the precision of the surrounding autocast region, else of `hidden`.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes gradients in forward, where the probabilities are; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = matmul_dtype(hidden)
        exact = torch.promote_types(dtype, torch.float32)
        x = hidden.to(dtype)
        w = weight.to(dtype)
        N, V = len(x), len(w)
        grad_x = torch.empty_like(x)
        grad_w = torch.zeros_like(weight, dtype=exact)
        losses = torch.empty((N, 1), dtype=exact, device=x.device)
        rows = min(N, max(1, CHUNK_LOGITS // V))
        logits = x.new_empty(rows, V)
        every_row = torch.arange(0, rows, device=x.device)
        shift_needed = x.device.type != "cpu" or not _largest_logit(x, w) < SAFE_EXPONENT
        for start in range(0, N, rows):
            part = slice(start, min(start + rows, N))
            # e holds logits, then their exponentials, then their gradient, (rows, V)
            e = torch.mm(x[part], w.T, out=logits[: part.stop - start])
            if shift_needed:
                e.sub_(e.amax(dim=1, keepdim=True))
            at_target = (every_row[: len(e)], targets[part])
            target_logit = e[at_target].to(exact).unsqueeze(1)
            total = _row_sums(e.exp_(), exact)
            losses[part] = total.log() - target_logit
            # d loss / d logits = (softmax - one-hot) / N. The division by `total` and N is left to
            # the narrow matrices; scatter_ would copy all of e twice.
            e[at_target] = (target_logit.exp() - total).to(dtype).squeeze(1)
            share = 1 / (total * N)
            torch.mm(e, w, out=grad_x[part]).mul_(share)
            accumulate_matmul(grad_w, e.T, (x[part] * share).to(dtype))
        ctx.save_for_backward(grad_x, grad_w)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_w = ctx.saved_tensors
        return grad_x * grad_loss, grad_w * grad_loss, None


def _row_sums(e: Tensor, exact: torch.dtype) -> Tensor:
    """The sum of each row, (rows, V) -> (rows, 1), in the type `exact`.

    A sum in fp32 would first copy all of e. The sums of 1,024 columns are rounded instead, which
    averages out.
    """
    sums = [columns.sum(dim=1) for columns in torch.split(e, COLUMNS, dim=1)]
    return torch.stack(sums, dim=1).sum(dim=1, keepdim=True, dtype=exact)


def _largest_logit(x: Tensor, w: Tensor) -> float:
    """A bound on every element of x @ w.T (Cauchy-Schwarz)."""
    return float(x.float().norm(dim=1).max() * w.float().norm(dim=1).max())
