"""Attention maps are causal and normalized; scores agree with patterns made by hand."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.examples import CONTEXT, V, small_model
from tinygpt.analysis import attention
from tinygpt.analysis.attention import (
    attention_maps,
    entropy,
    first_token,
    induction_scores,
    prefix_matching,
    previous_token,
)


def map_of(length: int, attended: Callable[[int], int]) -> np.ndarray:
    """A map (length, length) in which query token t attends only to token attended(t), or to 0."""
    columns = [max(0, attended(t)) for t in range(length)]
    return np.eye(length)[columns]


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=CONTEXT),
    st.sampled_from(["pre", "post"]),
)
def test_property_7_maps_are_zero_above_the_diagonal_and_rows_sum_to_one(
    layers: int, heads: int, ids: list[int], norm: Literal["pre", "post"]
):
    maps = attention_maps(small_model(layers=layers, heads=heads, norm=norm), ids)
    assert maps.shape == (layers, heads, len(ids), len(ids))
    assert (maps[..., ~np.tri(len(ids), dtype=bool)] == 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    entropies = entropy(maps)
    assert (entropies >= 0).all()
    assert (entropies <= math.log2(len(ids)) + 1e-6).all()


def test_scores_of_patterns_made_by_hand():
    T = 6
    to_previous = map_of(T, lambda t: t - 1)
    to_first = map_of(T, lambda t: 0)
    to_itself = map_of(T, lambda t: t)
    uniform = np.tri(T) / np.arange(1, T + 1)[:, None]
    maps = np.stack([to_previous, to_first, to_itself, uniform])
    uniform_weight = np.mean([1 / n for n in range(2, 7)])
    np.testing.assert_allclose(previous_token(maps), [1, 1 / 5, 0, uniform_weight])
    np.testing.assert_allclose(first_token(maps), [1 / 5, 1, 0, uniform_weight])
    np.testing.assert_allclose(entropy(maps), [0, 0, 0, np.mean(np.log2(range(1, 7)))])


def test_prefix_matching_of_patterns_made_by_hand():
    twice = [7, 8, 9] * 2
    induction = map_of(6, lambda t: t - 2)  # the token after the same token three places ago
    assert prefix_matching(induction, twice) == 1
    same_token = map_of(6, lambda t: t - 3)
    assert prefix_matching(same_token, twice) == 0
    assert prefix_matching(induction, [1, 2, 3, 4, 5, 6]) == 0


def test_prefix_matching_counts_every_earlier_occurrence():
    thrice = [7, 8, 9] * 3
    first_or_second = map_of(9, lambda t: t - 5 if t > 5 else t - 2)
    assert prefix_matching(first_or_second, thrice) == 1


def test_prefix_matching_counts_the_query_token_itself_where_it_followed_its_like():
    itself = map_of(3, lambda t: t)
    assert prefix_matching(itself, [5, 5, 5]) == 1


def test_scores_of_one_token_are_zero():
    one = np.ones((2, 2, 1, 1))
    for score in (previous_token(one), first_token(one), entropy(one), prefix_matching(one, [3])):
        np.testing.assert_array_equal(score, np.zeros((2, 2)))


def test_head_that_does_induction_has_induction_score_1(monkeypatch: pytest.MonkeyPatch):
    def induction_maps(model: object, ids: list[int]) -> np.ndarray:
        period = len(ids) // 2
        return map_of(len(ids), lambda t: t - period + 1)[None, None]

    monkeypatch.setattr(attention, "attention_maps", induction_maps)
    np.testing.assert_allclose(induction_scores(small_model()), 1)
