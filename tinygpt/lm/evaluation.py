"""How well a model predicts a stream of tokens: loss, perplexity and bits per byte.

Always measured in the same way: the whole stream in consecutive windows of context_length that do
not overlap; each token but the first is predicted once; the end-of-text token counts as a token of
no bytes; fp32, no dropout. The result is a function of model and tokens alone.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm.dataset import Tokens
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.model import GPT
from tinygpt.lm.training import LARGEST_LOSS

WINDOWS = 16  # evaluated at once, but
TOKENS = 4096  # no more than these, unless one window has more
LOGITS = 1 << 22  # held at once: 16 MB, which stay in the cache
FEW = 20  # documents, from which on each is one part of the text
BLOCK = 512  # tokens of a part where there are fewer; the last one has up to twice as many


def perplexity(loss: float) -> float:
    """exp(loss), at most exp(700), because exp(710) is beyond floats."""
    return math.exp(min(loss, 700))


@dataclass(frozen=True)
class Score:
    """How well a model's predictions fit.

    Args:
        loss: mean cross-entropy, nats per token.
        perplexity: exp(loss).
        bits_per_byte: the same total in bits, per byte of text; None where there is no text. It can
            be compared with that of models that have another tokenizer.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None

    @classmethod
    def of(cls, loss: float, tokens: int, text_bytes: int) -> "Score":
        """The score of a mean loss over `tokens` tokens of `text_bytes` bytes.

        Raises:
            CorruptArtifactError: it is beyond LARGEST_LOSS, or not a number.
        """
        if not loss < LARGEST_LOSS:
            raise CorruptArtifactError(
                f"the model predicts nothing: its loss is {loss:.4g} nats per token",
                hint="train it again, with a lower `train.learning_rate` if the loss had grown",
            )
        bits_per_byte = loss * tokens / math.log(2) / text_bytes if text_bytes else None
        return cls(loss, perplexity(loss), bits_per_byte)


@dataclass(frozen=True)
class Evaluation(Score):
    """A score and what it was measured on.

    Args:
        loss, perplexity, bits_per_byte: see Score.
        tokens: predicted.
        bytes: of their text.
        documents: with at least one predicted token.
        standard_error: of the loss, if the documents are a sample of all such documents; None for
            fewer than two.
        parts: the same by document.
    """

    tokens: int
    bytes: int
    documents: int
    standard_error: float | None
    parts: "Parts" = field(repr=False, compare=False)


class Parts(NamedTuple):
    """What an evaluation measured on each part of its text, (P,) each; see parts_of.

    Args:
        document: number of the document that the part belongs to, ascending.
        nats: total cross-entropy.
        tokens: predicted.
        bytes: of their text.
    """

    document: NDArray[np.int64]
    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]

    def json_lines(self) -> str:
        """The parts as JSON Lines of DocumentRow."""
        rows = zip(*(column.tolist() for column in self), strict=True)
        lines = (json.dumps(dict(zip(self._fields, row, strict=True))) + "\n" for row in rows)
        return "".join(lines)


def evaluate(
    model: GPT, tokens: Tokens, *, end_of_text: int, byte_lengths: NDArray[np.integer]
) -> Evaluation:
    """Measure how well a model predicts tokens.

    Args:
        model: on any device.
        tokens: (n,) with n >= 2.
        end_of_text: the id that ends a document.
        byte_lengths: (V,), the bytes of each token.
    Raises:
        InputError: there are fewer than two tokens.
    """
    windows = list(window_losses(model, tokens))
    targets = tokens[1:]
    ends = targets == end_of_text
    document = np.cumsum(ends) - ends  # of each target; the end of a document belongs to it
    losses = np.concatenate(windows)
    sums = np.bincount(document, losses)
    counts = np.bincount(document)
    loss = math.fsum(float(part.sum()) for part in windows) / len(targets)
    lengths = byte_lengths[targets]
    text_bytes = int(lengths.sum())
    score = Score.of(loss, len(targets), text_bytes)
    return Evaluation(
        **vars(score),
        tokens=len(targets),
        bytes=text_bytes,
        documents=len(counts),
        standard_error=standard_error(sums, counts),
        parts=parts_of(document, losses, lengths),
    )


def parts_of(
    document: NDArray[np.int64], losses: NDArray[np.float64], lengths: NDArray[np.integer]
) -> Parts:
    """The totals of each document; of fewer than FEW documents, those of contiguous blocks of them.

    Args:
        document: of each predicted token, ascending, (n,).
        losses: of each, in nats, (n,).
        lengths: its bytes, (n,).
    """
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    if len(starts) < FEW:
        stops = np.append(starts[1:], len(document))
        blocks = [
            start + np.arange(max(1, (stop - start) // BLOCK)) * BLOCK
            for start, stop in zip(starts, stops, strict=True)
        ]
        starts = np.concatenate(blocks)
    return Parts(
        document[starts],
        np.add.reduceat(losses, starts),
        np.diff(starts, append=len(document)),
        np.add.reduceat(lengths, starts),
    )


def mean_loss(model: GPT, tokens: Tokens, processes: DataParallelGroup = SINGLE_PROCESS) -> float:
    """The loss of `evaluate`, to the last bit, however many processes share the work.

    Raises:
        InputError: there are fewer than two tokens.
    """
    totals = torch.zeros(len(_spans(model, tokens)), dtype=torch.float64)
    ours = range(processes.rank, len(totals), processes.world_size)
    for index, losses in zip(ours, window_losses(model, tokens, processes), strict=True):
        totals[index] = float(losses.sum())
    return math.fsum(processes.sum(totals).tolist()) / (len(tokens) - 1)


def standard_error(sums: NDArray[Any], counts: NDArray[Any]) -> float | None:
    """The standard error of sum(sums) / sum(counts) over documents (Cochran 1977, §2.11).

    Documents are drawn independently; tokens of one document resemble each other, so that the
    spread over tokens would promise too much.

    Args:
        sums: (documents,) of the losses of each document.
        counts: (documents,) of its tokens.
    Returns:
        None for fewer than two documents.
    """
    n = len(sums)
    if n < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())


@torch.inference_mode()
def window_losses(
    model: GPT, tokens: Tokens, processes: DataParallelGroup = SINGLE_PROCESS
) -> Iterator[NDArray[np.float64]]:
    """The cross-entropy of every token but the first, a few windows at a time.

    Several processes take turns: each computes every world_size-th part.

    Yields:
        Losses in nats, in the order of the tokens.
    Raises:
        InputError: there are fewer than two tokens.
    """
    device = model.token_embedding.weight.device
    for start, stop, width in _spans(model, tokens)[processes.rank :: processes.world_size]:
        ids = torch.from_numpy(tokens[start : stop + 1].astype(np.int64)).to(device)
        losses = token_losses(model, ids[:-1].view(-1, width), ids[1:])
        yield losses.cpu().numpy().astype(np.float64)


def _spans(model: GPT, tokens: Tokens) -> list[tuple[int, int, int]]:
    """Start, stop and width of the windows that are evaluated at once."""
    predicted = len(tokens) - 1
    if predicted < 1:
        raise InputError(
            f"cannot evaluate {len(tokens)} tokens: the first token is never predicted",
            hint="give a longer text",
        )
    length = model.config.context_length
    full = predicted // length * length  # tokens predicted in windows of full length
    at_once = min(WINDOWS, max(1, TOKENS // length)) * length
    spans = []
    for start in range(0, full, at_once):
        spans.append((start, min(start + at_once, full), length))
    if full < predicted:
        spans.append((full, predicted, predicted - full))
    return spans


def token_losses(model: GPT, token_ids: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, without ever holding all logits, (B, T, V).

    Args:
        token_ids: (B, T).
        targets: the token that follows each, (B * T,).
    Returns:
        (B * T,), fp32.
    """
    rows = max(1, LOGITS // model.vocab_size)
    parts = []
    with torch.autocast(token_ids.device.type, enabled=False):
        if model.explicit:
            return F.cross_entropy(model(token_ids).flatten(0, 1), targets, reduction="none")
        hidden = model.hidden(token_ids).flatten(0, 1)  # (B * T, C)
        for x, target in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
            logits = model.lm_head(x)  # (rows, V)
            target_logit = logits.gather(1, target[:, None]).squeeze(1)
            parts.append(logits.logsumexp(dim=-1) - target_logit)
    return torch.cat(parts)
