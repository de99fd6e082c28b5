"""How well a model predicts a stream of tokens: loss, perplexity and bits per byte.

Everywhere the same: consecutive windows of context_length that do not overlap, over the whole stream; each token but the first
is predicted once; the end-of-story token counts as a token of no bytes; fp32, no dropout. The result is a function of model and
tokens alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinygpt.errors import InputError
from tinygpt.lm.dataset import Tokens
from tinygpt.lm.model import GPT
from tinygpt.lm.ranks import ALONE, Ranks

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
        return cls(loss, math.exp(min(loss, 700)), loss * tokens / math.log(2) / text_bytes if text_bytes else None)


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
    score = Score.of(math.fsum(float(losses.sum()) for losses in parts) / len(targets), len(targets), text_bytes)
    error = standard_error(sums, counts)
    return Evaluation(**vars(score), tokens=len(targets), bytes=text_bytes, stories=len(counts), standard_error=error)


def mean_loss(model: GPT, tokens: Tokens, ranks: Ranks = ALONE) -> float:
    """The loss of `evaluate`, to the last bit, however many processes share the work.

    Raises:
        InputError: there are fewer than two tokens.
    """
    totals = torch.zeros(len(_spans(model, tokens)), dtype=torch.float64)
    for index, losses in zip(range(ranks.rank, len(totals), ranks.count), window_losses(model, tokens, ranks), strict=True):
        totals[index] = float(losses.sum())
    return math.fsum(ranks.sum(totals).tolist()) / (len(tokens) - 1)


def standard_error(sums: NDArray[Any], counts: NDArray[Any]) -> float | None:
    """Of the ratio sum(sums) / sum(counts), over stories drawn independently (Cochran 1977, §2.11).

    Tokens of one story resemble each other, so that the spread over tokens would promise too much.
    """
    if (n := len(sums)) < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())


@torch.inference_mode()
def window_losses(model: GPT, tokens: Tokens, ranks: Ranks = ALONE) -> Iterator[NDArray[np.float64]]:
    """The cross-entropy of every token but the first, a few windows at a time; of several ranks, each takes its turn.

    Yields:
        Losses in nats, in the order of the tokens.
    Raises:
        InputError: there are fewer than two tokens.
    """
    for start, stop, width in _spans(model, tokens)[ranks.rank :: ranks.count]:
        ids = torch.from_numpy(tokens[start : stop + 1].astype(np.int64)).to(model.token_embedding.weight.device)
        yield token_losses(model, ids[:-1].view(-1, width), ids[1:]).cpu().numpy().astype(np.float64)


def _spans(model: GPT, tokens: Tokens) -> list[tuple[int, int, int]]:
    """Start, stop and width of the windows that are evaluated at once."""
    predicted, length = len(tokens) - 1, model.config.context_length
    if predicted < 1:
        raise InputError(f"{len(tokens)} tokens cannot be judged: the first token is never predicted", hint="give a longer text")
    full = predicted // length * length
    spans = [(start, min(start + WINDOWS * length, full), length) for start in range(0, full, WINDOWS * length)]
    return [*spans, (full, predicted, predicted - full)] if full < predicted else spans


def token_losses(model: GPT, token_ids: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, without ever holding (B, T, V): (B, T) and (B * T,) -> (B * T,), fp32."""
    with torch.autocast(token_ids.device.type, enabled=False):
        hidden = model.hidden(token_ids).flatten(0, 1)  # (B * T, C)
        rows, parts = max(1, LOGITS // model.vocab_size), []
        for x, target in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
            logits = model.unembed(x)  # (rows, V)
            parts.append(logits.logsumexp(dim=-1) - logits.gather(1, target[:, None]).squeeze(1))
        return torch.cat(parts)
