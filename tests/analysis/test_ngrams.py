"""N-gram models give probabilities, agree with counting by hand, and match published figures."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.analysis.ngrams import NAMES, NGrams, ngram_losses
from tinygpt.config import TokenizerConfig
from tinygpt.config.tables import DatasetConfig
from tinygpt.lm.dataset import encode_parts
from tinygpt.lm.holdout import plan_holdout
from tinygpt.lm.tokenizer import Tokenizer

V = 5
token_ids = st.integers(0, V - 1)
streams = st.lists(token_ids, min_size=0, max_size=60)


def probability_by_hand(train: list[int], context: tuple[int, ...], word: int, order: int) -> float:
    """Interpolated absolute discounting as the formula in the module's docstring says it."""
    if order == 0:
        return 1 / V
    known = context[len(context) - order + 1 :] if order > 1 else ()
    counts = Counter(tuple(train[i : i + order]) for i in range(len(train) - order + 1))
    shorter = probability_by_hand(train, known[1:], word, order - 1)
    once = list(counts.values()).count(1)
    twice = list(counts.values()).count(2)
    discount = once / (once + 2 * twice) if once else 0.5
    following = {gram: count for gram, count in counts.items() if gram[:-1] == known}
    total = sum(following.values())
    if not total:
        return shorter
    kept = max(counts[(*known, word)] - discount, 0)
    return kept / total + discount * len(following) / total * shorter


@given(streams, token_ids, token_ids)
def test_probabilities_of_all_words_after_a_context_sum_to_1(
    train: list[int], first: int, second: int
) -> None:
    probabilities = np.full(V, 1 / V)
    for order in (1, 2, 3):
        ngrams = NGrams(np.array(train, np.uint16), order, V)
        context = (first * V + second) % V ** (order - 1)
        probabilities = ngrams.probability(context * V + np.arange(V), probabilities)
        assert probabilities.sum() == pytest.approx(1)
        assert (probabilities > 0).all()
        expected = [probability_by_hand(train, (first, second), word, order) for word in range(V)]
        np.testing.assert_allclose(probabilities, expected)


@given(streams, st.lists(token_ids, min_size=2, max_size=20))
def test_losses_are_the_mean_over_every_token_but_the_first(
    train: list[int], judged: list[int]
) -> None:
    losses = ngram_losses(np.array(train, np.uint16), np.array(judged, np.uint16), V)
    assert tuple(losses) == NAMES
    assert losses["uniform"] == pytest.approx(math.log(V))
    for order, name in enumerate(NAMES[1:], start=1):
        expected = []
        for i in range(1, len(judged)):
            possible = min(order, i + 1)  # the stream begins at judged[0]
            probability = probability_by_hand(train, tuple(judged[:i]), judged[i], possible)
            expected.append(-math.log(probability))
        assert losses[name] == pytest.approx(sum(expected) / len(expected))


def test_trigrams_of_the_largest_vocabulary_fit_into_64_bits() -> None:
    tokens = np.full(10, 65_535, np.uint16)
    assert NGrams(tokens, 3, 65_536).keys.tolist() == [65_536**3 - 1]
    assert ngram_losses(tokens, tokens, 65_536)["trigram"] < 1


def test_real_stories_give_the_known_perplexities(stories_7k: Path) -> None:
    """About 373, 50 and 35 with other splits: counting trigrams gives the published 25 to 35."""
    stories = [json.loads(line)["text"] for line in stories_7k.read_text("utf-8").splitlines()]
    tokenizer = Tokenizer.train(stories, TokenizerConfig(vocab_size=8_000))
    tokens: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    holdout = plan_holdout(stories, DatasetConfig(val_fraction=0.05))
    for story in encode_parts(holdout.parts(stories), tokenizer):
        tokens[story.split].append(story.tokens)
    train, val = np.concatenate(tokens["train"]), np.concatenate(tokens["val"])
    perplexities = [math.exp(loss) for loss in ngram_losses(train, val, 8_000).values()]
    assert perplexities == pytest.approx([8_000, 373, 50, 35], rel=0.06)
