"""What the heads of a model attend to, and scores of well-known patterns.

Shapes: L layers, H heads, T tokens. In a map, (..., T, T), a row is a query token and a column is a
key token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tinygpt.lm.model import GPT
from tinygpt.lm.weights import Array

PROBES = 8  # random sequences on which induction is measured
PROBE_TOKENS = 50  # their length, at most; each sequence is repeated once


@dataclass(frozen=True)
class HeadScores:
    """How each head distributes its attention; every field is (L, H).

    Args:
        entropy: of the attention weights of a query token [bits], the mean over query tokens; 0 for
            a head that always attends to one token.
        previous_token: attention to the token just before (Elhage et al. 2021, "A Mathematical
            Framework for Transformer Circuits").
        first_token: attention to the very first token, where heads with nothing to do rest (Xiao et
            al. 2024, "attention sinks").
        induction: prefix matching (Olsson et al. 2022, "In-context Learning and Induction Heads"):
            attention to the token that followed an earlier occurrence of the query token, on random
            tokens that are repeated once.
    """

    entropy: Array
    previous_token: Array
    first_token: Array
    induction: Array


def attention_maps(model: GPT, token_ids: Sequence[int]) -> Array:
    """Attention weights on one text, (T,) -> (L, H, T, T)."""
    attention: list[torch.Tensor] = []  # of each layer, (1, H, T, T)
    with torch.no_grad():
        model(torch.tensor([list(token_ids)]), attention=attention)
    return torch.cat(attention).numpy()


def entropy(maps: Array) -> Array:
    """Mean entropy of the rows [bits], (..., T, T) -> (...)."""
    p = np.where(maps > 0, maps, 1).astype(np.float64)  # as p = 1 does, p = 0 adds 0
    return np.asarray((p * np.log2(1 / p)).sum(-1).mean(-1))


def previous_token(maps: Array) -> Array:
    """Mean attention from each token but the first to the token before it.

    (..., T, T) -> (...); 0 where T = 1.
    """
    return _mean_or_zero(np.diagonal(maps, offset=-1, axis1=-2, axis2=-1))


def first_token(maps: Array) -> Array:
    """Mean attention from each token but the first to the first token.

    (..., T, T) -> (...); 0 where T = 1.
    """
    return _mean_or_zero(maps[..., 1:, 0])


def prefix_matching(maps: Array, token_ids: Sequence[int]) -> Array:
    """Mean attention to the tokens that followed earlier occurrences of the query token.

    (..., T, T) -> (...). The mean is over query tokens that occurred before; 0 where none did.
    """
    ids = np.asarray(token_ids)
    T = len(ids)
    follows = np.zeros((T, T), bool)  # row i, column j: the token before j equals token i
    follows[:, 1:] = ids[:, None] == ids[:-1]
    follows = np.tril(follows)  # the future is never attended to
    occurred = follows.any(-1)  # (T,)
    return _mean_or_zero((maps * follows).sum(-1)[..., occurred])


def _mean_or_zero(values: Array) -> Array:
    """The mean over the last axis, in float64; 0 where that axis is empty."""
    if not values.shape[-1]:
        return np.zeros(values.shape[:-1])
    return np.asarray(values.mean(-1, dtype=np.float64))


def induction_scores(model: GPT) -> Array:
    """Prefix matching on repeated random tokens, which only induction can predict, (L, H)."""
    generator = torch.Generator().manual_seed(0)  # the same tokens each time: scores compare
    length = min(PROBE_TOKENS, model.config.context_length // 2, model.vocab_size)
    scores = []
    for _ in range(PROBES):
        tokens = torch.randperm(model.vocab_size, generator=generator)[:length]
        probe = tokens.repeat(2).tolist()
        scores.append(prefix_matching(attention_maps(model, probe), probe))
    return np.asarray(np.mean(scores, axis=0))
