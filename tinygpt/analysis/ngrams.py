"""N-gram models: what counting alone achieves, as a scale for a model's perplexity.

Interpolated absolute discounting (Ney, Essen & Kneser 1994; Chen & Goodman 1999, §2.7): every count
gives up a constant D, and what the counts of a context gave up is distributed as the model with one
word of context less predicts:

    P(w | context) = max(count(context w) - D, 0) / count(context)
                     + D * kinds(context) / count(context) * P(w | shorter context)

with D = n1 / (n1 + 2 n2), where n1 and n2 are the numbers of n-grams seen once and twice, and
kinds(context) is the number of different words seen after the context. The unigrams fall back on
the uniform distribution.
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

    An n-gram is one number, its key: its token ids are the digits in base `vocab_size`. The key of
    its context is that number without the last digit.

    Args:
        tokens: counted, (n,).
        order: 1 for unigrams, 2 for bigrams, 3 for trigrams.
        vocab_size: above all ids.
    """

    def __init__(self, tokens: Tokens, order: int, vocab_size: int) -> None:
        self.order = order
        self.vocab_size = vocab_size
        self.keys, self.counts = np.unique(self.pack(tokens), return_counts=True)
        once = int((self.counts == 1).sum())
        twice = int((self.counts == 2).sum())
        self.discount = once / (once + 2 * twice) if once else 0.5
        # Equal contexts are neighbors, because the keys ascend
        self.contexts, first = np.unique(self.keys // vocab_size, return_index=True)
        self.totals = np.add.reduceat(self.counts, first) if len(first) else self.counts
        self.kinds = np.diff(first, append=len(self.keys))

    def pack(self, tokens: Tokens) -> Keys:
        """The keys of all n-grams of a stream, in its order, (n,) -> (max(0, n - order + 1),)."""
        count = max(0, len(tokens) - self.order + 1)
        keys = np.zeros(count, np.int64)
        for place in range(self.order):
            keys *= self.vocab_size
            keys += tokens[place : place + count]
        return keys

    def probability(self, keys: Keys, shorter: Probabilities) -> Probabilities:
        """P(last token | the tokens before it) of each n-gram.

        Args:
            keys: of the n-grams, (n,).
            shorter: the same probability given one token of context less, (n,).
        Returns:
            (n,).
        """
        contexts = keys // self.vocab_size
        count = _look_up(self.keys, self.counts, keys)
        total = _look_up(self.contexts, self.totals, contexts)
        given_up = self.discount * _look_up(self.contexts, self.kinds, contexts)
        kept = np.maximum(count - self.discount, 0)
        interpolated = (kept + given_up * shorter) / np.maximum(total, 1)  # avoids 0 / 0
        return np.where(total > 0, interpolated, shorter)


def _look_up(keys: Keys, values: NDArray[Any], wanted: Keys) -> NDArray[Any]:
    """The value of each wanted key; 0 for those that are not among the ascending keys."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def ngram_losses(train: Tokens, judged: Tokens, vocab_size: int) -> dict[str, float]:
    """The mean loss of each n-gram model on a stream [nats per token].

    Args:
        train: the tokens that are counted; of more than MAX_COUNTED only the first.
        judged: (n,) with n >= 2; every token but the first is predicted from those before it.
        vocab_size: above all ids.
    Returns:
        {"uniform": ..., "unigram": ..., "bigram": ..., "trigram": ...}.
    """
    losses = {"uniform": math.log(vocab_size)}
    probabilities = np.full(len(judged) - 1, 1 / vocab_size)  # of each token but the first
    for order, name in enumerate(NAMES[1:], start=1):
        ngrams = NGrams(train[:MAX_COUNTED], order, vocab_size)
        # A unigram needs no token before it, and the first token is not predicted
        keys = ngrams.pack(judged[1:] if order == 1 else judged)
        # No trigram ends at the second token: its bigram's probability stays
        skipped = len(probabilities) - len(keys)
        probabilities[skipped:] = ngrams.probability(keys, probabilities[skipped:])
        losses[name] = float(-np.log(probabilities).mean())
    return losses
