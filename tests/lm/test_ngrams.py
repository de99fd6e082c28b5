"""N-gram probabilities are probabilities, agree with counting by hand, and give the known figures on real stories."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.config import TokenizerConfig
from tinygpt.lm.dataset import encode_stories
from tinygpt.lm.ngrams import NAMES, NGrams, ngram_losses
from tinygpt.lm.tokenizer import Tokenizer

V = 5
streams = st.lists(st.integers(0, V - 1), min_size=0, max_size=60)


def by_hand(train: list[int], context: tuple[int, ...], word: int, order: int) -> float:
    """Interpolated absolute discounting as the formula says it."""
    if order == 0:
        return 1 / V
    context = context[len(context) - order + 1 :] if order > 1 else ()
    counts = Counter(tuple(train[i : i + order]) for i in range(len(train) - order + 1))
    lower = by_hand(train, context[1:], word, order - 1)
    once, twice = (list(counts.values()).count(times) for times in (1, 2))
    discount = once / (once + 2 * twice) if once else 0.5
    following = {gram: count for gram, count in counts.items() if gram[:-1] == context}
    total = sum(following.values())
    if not total:
        return lower
    return max(counts[(*context, word)] - discount, 0) / total + discount * len(following) / total * lower


@given(streams, st.integers(0, V - 1), st.integers(0, V - 1))
def test_probabilities_of_all_words_after_a_context_sum_to_1(train: list[int], first: int, second: int) -> None:
    probabilities = np.full(V, 1 / V)
    for order in (1, 2, 3):
        ngrams = NGrams(np.array(train, np.uint16), order, V)
        context = (first * V + second) % V ** (order - 1)
        probabilities = ngrams.probability(context * V + np.arange(V), probabilities)
        assert probabilities.sum() == pytest.approx(1)
        assert (probabilities > 0).all()
        expected = [by_hand(train, (first, second), word, order) for word in range(V)]
        np.testing.assert_allclose(probabilities, expected)


@given(streams, st.lists(st.integers(0, V - 1), min_size=2, max_size=20))
def test_losses_are_those_of_the_targets_the_model_has(train: list[int], judged: list[int]) -> None:
    losses = ngram_losses(np.array(train, np.uint16), np.array(judged, np.uint16), V)
    assert tuple(losses) == NAMES
    assert losses["uniform"] == pytest.approx(math.log(V))
    for order, name in enumerate(NAMES[1:], start=1):
        expected = [
            -math.log(by_hand(train, tuple(judged[:i]), judged[i], min(order, i + 1)))  # the stream begins at judged[0]
            for i in range(1, len(judged))
        ]
        assert losses[name] == pytest.approx(sum(expected) / len(expected))


def test_the_largest_vocabulary_fits() -> None:
    tokens = np.full(10, 65_535, np.uint16)
    assert NGrams(tokens, 3, 65_536).keys.tolist() == [65_536**3 - 1]
    assert ngram_losses(tokens, tokens, 65_536)["trigram"] < 1


def test_real_stories_give_the_known_perplexities(stories_7k: Path) -> None:
    """About 373, 50 and 35 with other splits: so the published 25 to 35 is what counting trigrams gives."""
    stories = [json.loads(line)["text"] for line in stories_7k.read_text("utf-8").splitlines()]
    tokenizer = Tokenizer.train(stories, TokenizerConfig(vocab_size=8_000))
    encoded = list(encode_stories(stories, tokenizer, 0.05))
    train, val = (np.concatenate([story.tokens for story in encoded if story.split == side]) for side in ("train", "val"))
    perplexities = [math.exp(loss) for loss in ngram_losses(train, val, 8_000).values()]
    assert perplexities == pytest.approx([8_000, 373, 50, 35], rel=0.06)
