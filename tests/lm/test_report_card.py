"""Every measure of the report card against counting by hand; what was copied is found whole, with its source."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import TokenizerConfig
from tinygpt.lm import report_card as module
from tinygpt.lm.report_card import HALVES, Estimate, distinct, halves, longest_matches, loops, report_card, unseen_words, words
from tinygpt.lm.tokenizer import Tokenizer

token_lists = st.lists(st.integers(1, 3), max_size=12)
texts = st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=5)


def longest_by_hand(story: list[int], train: list[int]) -> tuple[int, int, int]:
    """The longest common run, the first in the story, the first in training."""
    for length in range(len(story), 0, -1):
        for start in range(len(story) - length + 1):
            for source in range(len(train) - length + 1):
                if story[start : start + length] == train[source : source + length]:
                    return length, start, source
    return 0, 0, 0


@given(st.lists(token_lists, min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=200)
def test_the_longest_match_is_that_of_trying_every_place(stories: list[list[int]], train: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = longest_matches(stories, np.array(train, np.uint16))
    for story, (length, start, source) in zip(stories, found.tolist(), strict=True):
        expected = longest_by_hand(story, train)
        assert length == expected[0]
        assert story[start : start + length] == train[source : source + length]
        if length:  # the first place of this very run
            assert not any(train[i : i + length] == story[start : start + length] for i in range(source))


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=20)
def test_a_story_copied_from_training_is_found_whole_with_its_source(seed: int, length: int) -> None:
    chance = np.random.default_rng(seed)
    train = chance.integers(1, 60_000, 5_000).astype(np.uint16)
    source = int(chance.integers(0, len(train) - length + 1))
    copy = train[source : source + length].tolist()
    fresh = chance.integers(60_000, 65_000, 50).tolist()
    found = longest_matches([fresh, copy, [*fresh[:7], *copy, *fresh[7:]]], train)
    whole = (length, 0, source)
    if length > 3:  # so that no other place has it
        assert found.tolist() == [[0, 0, 0], list(whole), [length, 7, source]]
    assert found[:, 0].tolist() == [0, length, length]


def test_no_match_crosses_from_one_training_story_to_the_next() -> None:
    train = np.array([1, 2, 0, 3, 4, 0], np.uint16)
    assert longest_matches([[1, 2, 3, 4]], train).tolist() == [[2, 0, 0]]


@given(texts, st.integers(1, 3))
def test_distinct_n_is_distinct_over_all(spoken: list[list[str]], n: int) -> None:
    rows = halves(len(spoken))
    for row, value in list(zip(rows, distinct(spoken, n, rows), strict=True))[:20]:
        grams = [
            tuple(text[i : i + n]) for text, taken in zip(spoken, row, strict=True) if taken for i in range(len(text) - n + 1)
        ]
        assert value == pytest.approx(len(set(grams)) / len(grams) if grams else 0)


@given(st.lists(st.sampled_from("ab"), max_size=14))
def test_a_loop_is_a_phrase_of_two_words_or_more_three_times_in_a_row(text: list[str]) -> None:
    phrases = [text[i : i + n] for n in range(2, 6) for i in range(len(text))]
    by_hand = any(" " + " ".join(phrase * 3) + " " in " " + " ".join(text) + " " for phrase in phrases if len(phrase) > 1)
    assert loops(text) == by_hand


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
def test_loops_of_stories(text: str, looping: bool) -> None:
    assert loops(text.split()) is looping


def test_words_keep_their_apostrophes_and_nothing_else() -> None:
    assert words("\"I can't,\" said Zoë’s dog_2 -- 'OK'.") == ["i", "can't", "said", "zoë’s", "dog", "2", "ok"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Tom saw a cat. The cat was big."] * 3, TokenizerConfig(vocab_size=280))


@given(st.lists(st.lists(st.sampled_from(["Tom", "saw", "cat", "dog"]), min_size=1, max_size=4), min_size=1, max_size=4))
def test_unseen_words_are_those_of_no_training_story(tokenizer: Tokenizer, stories: list[list[str]]) -> None:
    ids = [i for story in stories for i in (*tokenizer.encode(" ".join(story)), tokenizer.end_of_story)]
    wanted = {"tom", "saw", "cat", "dog", "catdog", "tomsaw"}  # no story's last word joins the next one's first
    assert unseen_words(wanted, np.array(ids, np.uint16), tokenizer) == wanted - {w.lower() for story in stories for w in story}


def test_the_card_of_stories_made_by_hand() -> None:
    stories = [
        'Tom saw a cat. "Hello!"',
        "Tom ran and ran and ran and ran and",
        "A zorb sat",
        "Lily slept.",
    ]
    card = report_card(stories, [True, False, True, False], np.array([50, 3, 49, 60]), {"zorb", "hello"})
    spoken = [words(story) for story in stories]
    total = sum(map(len, spoken))
    assert {name: estimate.value for name, estimate in card.items()} == pytest.approx(
        {
            "distinct_1": len({word for text in spoken for word in text}) / total,
            "distinct_2": len({pair for text in spoken for pair in pairwise(text)}) / (total - 4),
            "distinct_3": len({gram for text in spoken for gram in zip(text, text[1:], text[2:], strict=False)}) / (total - 8),
            "unseen_words": 2 / total,
            "loops": 1 / 4,
            "ended": 1 / 4,
            "longest_match": 162 / 4,
            "memorised": 2 / 4,
        },
        abs=1e-6,
    )


@given(texts, st.data())
@settings(max_examples=30)
def test_a_value_lies_in_its_interval_and_a_share_between_0_and_1(spoken: list[list[str]], data: st.DataObject) -> None:
    count = len(spoken)
    ended = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    copied = np.array(data.draw(st.lists(st.integers(0, 90), min_size=count, max_size=count)))
    card = report_card([" ".join(text) for text in spoken], ended, copied, {"b"})
    for name, (value, low, high) in card.items():
        assert 0 <= low <= high
        assert high <= 1 or name == "longest_match"
        if name not in ("distinct_1", "distinct_2", "distinct_3", "unseen_words"):  # ratios of a handful of words may be skewed
            assert low - 1e-6 <= value <= high + 1e-6


def test_halves_are_halves_and_every_story_is_in_as_many() -> None:
    rows = halves(30)
    assert rows.shape == (1 + HALVES, 30)
    assert rows[0].all()
    assert (rows[1:].sum(axis=1) == 15).all()
    assert abs(rows[1:].mean(axis=0) - 0.5).max() < 0.07
    assert np.array_equal(rows, halves(30))


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    """1.96 standard errors to each side: s / sqrt(n)."""
    values = np.random.default_rng(0).normal(5, 2, 100)
    rows = halves(100)
    estimate = Estimate.of(rows @ values / rows.sum(axis=1))
    assert estimate.value == pytest.approx(values.mean(), abs=1e-6)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 10, rel=0.1)


@pytest.mark.full
def test_intervals_of_distinct_n_hold_the_mean_of_many_samples_as_often_as_they_say() -> None:
    """A bootstrap with replacement would make them two to four times as wide: a story that is drawn twice is all repetition."""
    chance = random.Random(0)
    vocabulary = [f"w{i}" for i in range(400)]
    weights = [1 / (i + 1) for i in range(400)]
    samples = [[chance.choices(vocabulary, weights, k=40) for _ in range(24)] for _ in range(60)]
    rows = halves(24)
    estimates = [Estimate.of(distinct(sample, 2, rows)) for sample in samples]
    truth = np.mean([estimate.value for estimate in estimates])
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert np.mean([low <= truth <= high for _, low, high in estimates]) >= 0.8
    assert np.mean([high - low for _, low, high in estimates]) < 1.5 * 3.92 * spread
