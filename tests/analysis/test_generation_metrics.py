"""Every measure of generation quality agrees with counting by hand; copies are found whole."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.analysis import generation_metrics as module
from tinygpt.analysis.generation_metrics import (
    HALVES,
    Estimate,
    Match,
    distinct,
    generation_metrics,
    longest_matches,
    loops,
    random_halves,
    unseen_words,
    words,
)
from tinygpt.config import TokenizerConfig
from tinygpt.lm.tokenizer import Tokenizer

Words = list[str]

token_lists = st.lists(st.integers(1, 3), max_size=12)
word_lists = st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=5)
RATIOS_OF_WORDS = ("distinct_1", "distinct_2", "distinct_3", "unseen_words")


def longest_by_hand(text: list[int], train: list[int]) -> int:
    """Length of the longest common run."""
    for length in range(len(text), 0, -1):
        for start in range(len(text) - length + 1):
            for source in range(len(train) - length + 1):
                if text[start : start + length] == train[source : source + length]:
                    return length
    return 0


def ngrams(text: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]


@given(
    st.lists(token_lists, min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 20),
)
@settings(max_examples=200)
def test_longest_match_agrees_with_comparing_all_positions(
    texts: list[list[int]], train: list[int], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = longest_matches(texts, np.array(train, np.uint16))
    for text, (length, start, source) in zip(texts, found, strict=True):
        run = text[start : start + length]
        assert length == longest_by_hand(text, train)
        assert run == train[source : source + length]
        if length:
            earlier = [train[i : i + length] for i in range(source)]
            assert run not in earlier


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=20)
def test_copied_text_is_found_whole_with_its_source(seed: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    train = generator.integers(1, 60_000, 5_000).astype(np.uint16)
    source = int(generator.integers(0, len(train) - length + 1))
    copy = train[source : source + length].tolist()
    fresh = generator.integers(60_000, 65_000, 50).tolist()
    found = longest_matches([fresh, copy, [*fresh[:7], *copy, *fresh[7:]]], train)
    assert [match.tokens for match in found] == [0, length, length]
    if length > 3:  # long enough to occur once
        assert found == [Match(0, 0, 0), Match(length, 0, source), Match(length, 7, source)]


def test_no_match_crosses_from_one_training_document_to_the_next() -> None:
    train = np.array([1, 2, 0, 3, 4, 0], np.uint16)
    assert longest_matches([[1, 2, 3, 4]], train) == [Match(tokens=2, start=0, source=0)]


@given(word_lists, st.integers(1, 3))
def test_distinct_n_is_distinct_ngrams_over_all_ngrams(texts: list[Words], n: int) -> None:
    chosen = random_halves(len(texts))[:20]
    for row, value in zip(chosen, distinct(texts, n, chosen), strict=True):
        grams: list[tuple[str, ...]] = []
        for text, taken in zip(texts, row, strict=True):
            if taken:
                grams += ngrams(text, n)
        assert value == pytest.approx(len(set(grams)) / len(grams) if grams else 0)


@given(st.lists(st.sampled_from("ab"), max_size=14))
def test_loop_is_a_phrase_of_at_least_two_words_three_times_in_a_row(text: Words) -> None:
    spaced = f" {' '.join(text)} "
    phrases = [phrase for n in range(2, 6) for phrase in ngrams(text, n)]
    assert loops(text) == any(f" {' '.join(phrase * 3)} " in spaced for phrase in phrases)


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("the cat sat the cat sat the cat sat", True),
        ("so it goes and the cat sat the cat sat the cat sat the cat", True),
        ("the cat sat the cat sat on a mat", False),
        ("very very very big", False),
        ("", False),
    ],
)
def test_loops_in_example_texts(text: str, looping: bool) -> None:
    assert loops(text.split()) is looping


def test_words_keep_inner_apostrophes_and_drop_other_punctuation() -> None:
    expected = ["i", "can't", "said", "zoë’s", "dog", "2", "ok"]
    assert words("\"I can't,\" said Zoë’s dog_2 -- 'OK'.") == expected


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Tom saw a cat. The cat was big."] * 3, TokenizerConfig(vocab_size=280))


names = st.sampled_from(["Tom", "saw", "cat", "dog"])


@given(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=4))
def test_unseen_words_occur_in_no_training_document(
    tokenizer: Tokenizer, documents: list[Words]
) -> None:
    ids: list[int] = []
    seen: set[str] = set()
    for document in documents:
        ids += [*tokenizer.encode(" ".join(document)), tokenizer.end_of_text]
        seen.update(word.lower() for word in document)
    # The last two would be seen if the last word of a document joined the first of the next
    wanted = {"tom", "saw", "cat", "dog", "catdog", "tomsaw"}
    assert unseen_words(wanted, np.array(ids, np.uint16), tokenizer) == wanted - seen


def test_metrics_of_example_texts_agree_with_counting_by_hand() -> None:
    texts = [
        'Tom saw a cat. "Hello!"',
        "Tom ran and ran and ran and ran and",
        "A zorb sat",
        "Lily slept.",
    ]
    ended = [True, False, True, False]
    metrics = generation_metrics(texts, ended, [50, 3, 49, 60], {"zorb", "hello"})
    texts_words = [words(text) for text in texts]
    total = sum(map(len, texts_words))
    unigrams = {word for text in texts_words for word in text}
    bigrams = {pair for text in texts_words for pair in pairwise(text)}
    trigrams = {gram for text in texts_words for gram in ngrams(text, 3)}
    expected = {
        "distinct_1": len(unigrams) / total,
        "distinct_2": len(bigrams) / (total - 4),
        "distinct_3": len(trigrams) / (total - 8),
        "unseen_words": 2 / total,
        "loops": 1 / 4,
        "ended": 1 / 4,
        "longest_match": 162 / 4,
        "memorized": 2 / 4,
    }
    values = {name: estimate.value for name, estimate in metrics.items()}
    assert values == pytest.approx(expected, abs=1e-6)


@given(word_lists, st.data())
@settings(max_examples=30)
def test_values_lie_in_their_intervals_and_shares_between_0_and_1(
    texts: list[Words], data: st.DataObject
) -> None:
    count = len(texts)
    ended = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    copied = data.draw(st.lists(st.integers(0, 90), min_size=count, max_size=count))
    metrics = generation_metrics([" ".join(text) for text in texts], ended, copied, {"b"})
    for name, (value, low, high) in metrics.items():
        assert 0 <= low <= high
        assert high <= 1 or name == "longest_match"
        if name not in RATIOS_OF_WORDS:  # ratios of a handful of words may be skewed
            assert low - 1e-6 <= value <= high + 1e-6


def test_random_halves_take_half_of_the_texts_and_each_text_about_equally_often() -> None:
    chosen = random_halves(30)
    assert chosen.shape == (1 + HALVES, 30)
    assert chosen[0].all()
    assert (chosen[1:].sum(axis=1) == 15).all()
    assert abs(chosen[1:].mean(axis=0) - 0.5).max() < 0.07
    assert np.array_equal(chosen, random_halves(30))


def test_interval_of_a_mean_is_1_96_standard_errors_to_each_side() -> None:
    values = np.random.default_rng(0).normal(5, 2, 100)
    chosen = random_halves(100)
    estimate = Estimate.of(chosen @ values / chosen.sum(axis=1))
    half_width = (estimate.high - estimate.low) / 2
    assert estimate.value == pytest.approx(values.mean(), abs=1e-6)
    assert half_width == pytest.approx(1.96 * values.std(ddof=1) / 10, rel=0.1)


@pytest.mark.full
def test_intervals_of_distinct_n_cover_the_mean_of_many_samples() -> None:
    """With replacement they would be two to four times as wide: a text drawn twice repeats."""
    generator = random.Random(0)
    vocabulary = [f"w{i}" for i in range(400)]
    weights = [1 / (i + 1) for i in range(400)]
    chosen = random_halves(24)
    estimates = []
    for _ in range(60):
        texts = [generator.choices(vocabulary, weights, k=40) for _ in range(24)]
        estimates.append(Estimate.of(distinct(texts, 2, chosen)))
    values = [estimate.value for estimate in estimates]
    mean, spread = np.mean(values), np.std(values, ddof=1)
    assert np.mean([low <= mean <= high for _, low, high in estimates]) >= 0.8
    assert np.mean([high - low for _, low, high in estimates]) < 1.5 * 3.92 * spread
