"""N-gram models: what counting alone achieves, so that a model's perplexity has a scale.

Interpolated absolute discounting (Ney, Essen & Kneser 1994; Chen & Goodman 1999, §2.7): every count gives up a constant D, and
what a context's counts gave up is shared out as the model with one word of context less would have it:

    P(w | context) = max(count(context w) - D, 0) / count(context) + D * kinds(context) / count(context) * P(w | shorter context)

with D = n1 / (n1 + 2 n2), where n1 and n2 are the numbers of n-grams seen once and twice. Below the unigrams lies the uniform
distribution.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.lm.dataset import Tokens

NAMES = ("uniform", "unigram", "bigram", "trigram")
MAX_COUNTED = 1 << 24  # tokens; counting them takes about 0.6 GB and 2 seconds

Keys = NDArray[np.int64]
Probabilities = NDArray[np.float64]


class NGrams:
    """Counts of all n-grams of one order.

    An n-gram is one number, its ids written as digits in base V; its context is that number without the last digit.
    """

    def __init__(self, tokens: Tokens, order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        self.keys, self.counts = np.unique(self.pack(tokens), return_counts=True)
        once, twice = ((self.counts == times).sum() for times in (1, 2))
        self.discount = float(once / (once + 2 * twice)) if once else 0.5
        self.contexts, first = np.unique(self.keys // vocab_size, return_index=True)
        self.totals = np.add.reduceat(self.counts, first) if len(first) else self.counts
        self.kinds = np.diff(first, append=len(self.keys))

    def pack(self, tokens: Tokens) -> Keys:
        """The n-grams of a stream in its order, len(tokens) - order + 1 of them."""
        n = max(0, len(tokens) - self.order + 1)
        keys = np.zeros(n, np.int64)
        for place in range(self.order):
            keys *= self.vocab_size
            keys += tokens[place : place + n]
        return keys

    def probability(self, keys: Keys, shorter: Probabilities) -> Probabilities:
        """P(last token | the tokens before it) of n-grams, given that of the same without their first token."""
        count = _look_up(self.keys, self.counts, keys)
        contexts = keys // self.vocab_size
        total = _look_up(self.contexts, self.totals, contexts)
        given_up = self.discount * _look_up(self.contexts, self.kinds, contexts)
        seen = np.maximum(total, 1)  # avoids 0 / 0 where the context is new
        return np.where(total > 0, (np.maximum(count - self.discount, 0) + given_up * shorter) / seen, shorter)


def _look_up(keys: Keys, values: NDArray[Any], wanted: Keys) -> NDArray[Any]:
    """The value of each wanted key, 0 for those that are not there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def ngram_losses(train: Tokens, judged: Tokens, vocab_size: int) -> dict[str, float]:
    """The mean loss of each n-gram model on a stream, in nats per token.

    Args:
        train: counted, its first 16.8 M tokens if it has more.
        judged: (n,) with n >= 2; every token but the first is predicted, from those before it in the stream.
        vocab_size: above all ids.
    Returns:
        {"uniform": ..., "unigram": ..., "bigram": ..., "trigram": ...}.
    """
    probabilities = np.full(len(judged) - 1, 1 / vocab_size)
    losses = {"uniform": math.log(vocab_size)}
    for order, name in enumerate(NAMES[1:], start=1):
        ngrams = NGrams(train[:MAX_COUNTED], order, vocab_size)
        keys = ngrams.pack(judged[max(0, 2 - order) :])
        without = len(probabilities) - len(keys)  # the second token has but one before it: its bigram stands for the trigram
        probabilities[without:] = ngrams.probability(keys, probabilities[without:])
        losses[name] = float(-np.log(probabilities).mean())
    return losses
