"""How well a model predicts a stream of tokens: loss, perplexity and bits per byte.

Everywhere the same: consecutive windows of context_length that do not overlap, over the whole stream; each token but the first
is predicted once; the end-of-story token counts as a token of no bytes; fp32, no dropout. The result is a function of model and
tokens alone.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinygpt.errors import InputError
from tinygpt.lm.dataset import Tokens
from tinygpt.lm.model import GPT

WINDOWS = 16  # evaluated at once
LOGITS = 1 << 22  # held at once: 16 MB, which stay in the cache


@dataclass(frozen=True)
class Score:
    """What a model's predictions are worth.

    Args:
        loss: mean cross-entropy, nats per token.
        perplexity: exp(loss).
        bits_per_byte: the same total in bits, per byte of text; None where there is no text. It compares models with other
            tokenizers.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None

    @classmethod
    def of(cls, loss: float, tokens: int, text_bytes: int) -> "Score":
        """The score of a mean loss over `tokens` tokens of `text_bytes` bytes."""
        bits_per_byte = loss * tokens / math.log(2) / text_bytes if text_bytes else None
        return cls(loss, math.exp(min(loss, 700)), bits_per_byte)


@dataclass(frozen=True)
class Evaluation(Score):
    """A score and what it rests on.

    Args:
        loss, perplexity, bits_per_byte: see Score.
        tokens: predicted.
        bytes: of their text.
        stories: with at least one predicted token.
        standard_error: of the loss, if the stories are a sample of all such stories; None for fewer than two.
    """

    tokens: int
    bytes: int
    stories: int
    standard_error: float | None


def evaluate(model: GPT, tokens: Tokens, *, end_of_story: int, byte_lengths: NDArray[np.integer]) -> Evaluation:
    """Judge a model.

    Args:
        model: on any device.
        tokens: (n,) with n >= 2.
        end_of_story: the id that ends a story.
        byte_lengths: (V,), the bytes of each token.
    Raises:
        InputError: there are fewer than two tokens.
    """
    parts, targets = list(window_losses(model, tokens)), tokens[1:]
    ends = targets == end_of_story
    story = np.cumsum(ends) - ends  # of each target; the end of a story belongs to it
    sums, counts = np.bincount(story, np.concatenate(parts)), np.bincount(story)
    text_bytes = int(byte_lengths[targets].sum())
    score = Score.of(_mean(parts), len(targets), text_bytes)
    return Evaluation(
        **vars(score), tokens=len(targets), bytes=text_bytes, stories=len(counts), standard_error=standard_error(sums, counts)
    )


def mean_loss(model: GPT, tokens: Tokens) -> float:
    """The loss of `evaluate`, to the last bit.

    Raises:
        InputError: there are fewer than two tokens.
    """
    return _mean(window_losses(model, tokens))


def _mean(parts: Iterable[NDArray[np.float64]]) -> float:
    sums = [(float(losses.sum()), len(losses)) for losses in parts]
    return math.fsum(total for total, _ in sums) / sum(count for _, count in sums)


def standard_error(sums: NDArray[Any], counts: NDArray[Any]) -> float | None:
    """Of the ratio sum(sums) / sum(counts), over stories drawn independently (Cochran 1977, §2.11).

    Tokens of one story resemble each other, so that the spread over tokens would promise too much.
    """
    n = len(sums)
    if n < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())


@torch.inference_mode()
def window_losses(model: GPT, tokens: Tokens) -> Iterator[NDArray[np.float64]]:
    """The cross-entropy of every token but the first, a few windows at a time.

    Yields:
        Losses in nats, in the order of the tokens.
    Raises:
        InputError: there are fewer than two tokens.
    """
    predicted, length = len(tokens) - 1, model.config.context_length
    if predicted < 1:
        raise InputError(f"{len(tokens)} tokens cannot be judged: the first token is never predicted", hint="give a longer text")
    full = predicted // length * length
    spans = [(start, min(start + WINDOWS * length, full), length) for start in range(0, full, WINDOWS * length)]
    if full < predicted:
        spans.append((full, predicted, predicted - full))
    for start, stop, width in spans:
        ids = torch.from_numpy(tokens[start : stop + 1].astype(np.int64)).to(model.token_embedding.weight.device)
        losses = token_losses(model, ids[:-1].view(-1, width), ids[1:])
        yield losses.cpu().numpy().astype(np.float64)


def token_losses(model: GPT, token_ids: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, without ever holding (B, T, V): (B, T) and (B * T,) -> (B * T,), fp32."""
    with torch.autocast(token_ids.device.type, enabled=False):
        hidden = model.hidden(token_ids).flatten(0, 1)  # (B * T, C)
        rows, parts = max(1, LOGITS // model.vocab_size), []
        for x, target in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
            logits = model.unembed(x)  # (rows, V)
            parts.append(logits.logsumexp(dim=-1) - logits.gather(1, target[:, None]).squeeze(1))
        return torch.cat(parts)
