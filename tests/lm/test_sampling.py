"""From logits to a token: softmax, the filters, the draw, and the order in which they apply."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinygpt.config import SampleConfig
from tinygpt.lm.sampling import (
    choose,
    draw,
    log_probabilities,
    min_p,
    softmax,
    top_k,
    top_p,
    uniform,
)

Logits = NDArray[np.float32]


@st.composite
def probabilities(draw: st.DrawFn) -> Logits:
    """A distribution in which equal probabilities and zeros are common."""
    weights = draw(st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any))
    return (np.array(weights) / sum(weights)).astype(np.float32)


chances = st.floats(0, 1, exclude_max=True)
logit_lists = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30)


def likeliest_first(p: Logits) -> list[int]:
    """All ids; of equally likely ones the lowest first."""
    return sorted(range(len(p)), key=lambda i: (-p[i], i))


# ---- filters


def assert_keeps(kept: NDArray[np.intp], p: Logits, expected: Sequence[int]) -> None:
    """`kept` are the expected tokens in the order of their ids, impossible ones aside."""
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert {i for i in kept if p[i]} == {i for i in expected if p[i]}


@given(probabilities(), st.integers(1, 50))
def test_top_k_keeps_the_k_likeliest_and_of_equal_ones_the_lowest_ids(p: Logits, k: int) -> None:
    assert_keeps(top_k(p, k), p, likeliest_first(p)[:k])


@given(probabilities(), st.floats(0.001, 1))
@example(np.full(4, 0.25, np.float32), 0.5)
def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass(p: Logits, mass: float) -> None:
    order = likeliest_first(p)
    running = 0.0
    count = 0
    while running < mass and count < len(p):
        running += float(p[order[count]])
        count += 1
    assert_keeps(top_p(p, mass), p, order[:count])


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p_is_right_where_it_keeps_many_tokens(mass: float) -> None:
    p = softmax(np.random.default_rng(0).standard_normal(3_000).astype(np.float32))
    order = likeliest_first(p)
    count = int(np.searchsorted(np.cumsum(p[order], dtype=np.float64), mass)) + 1
    assert_keeps(top_p(p, mass), p, order[:count])


@given(probabilities(), st.floats(0.001, 1))
def test_min_p_keeps_tokens_near_enough_to_the_likeliest(p: Logits, share: float) -> None:
    least = np.float32(share) * max(p)
    assert_keeps(min_p(p, share), p, [i for i in range(len(p)) if p[i] >= least])


# ---- softmax and log-probabilities


@given(logit_lists, st.floats(0.01, 100))
def test_softmax_with_temperature_equals_the_formula(
    logits: list[float], temperature: float
) -> None:
    exact = np.exp((np.array(logits) - max(logits)) / temperature)
    found = softmax(np.array(logits, np.float32), temperature)
    tolerance = 1e-2 if temperature < 0.1 else 1e-3
    np.testing.assert_allclose(found, exact / exact.sum(), rtol=tolerance, atol=1e-7)


@given(logit_lists, st.data())
def test_log_probability_is_that_of_the_unfiltered_model(
    logits: list[float], data: st.DataObject
) -> None:
    token_id = data.draw(st.integers(0, len(logits) - 1))
    shifted = np.array(logits) - max(logits)
    exact = shifted[token_id] - np.log(np.exp(shifted).sum())
    rows = np.array([logits, logits[::-1]], np.float32)
    found = log_probabilities(rows, [token_id, len(logits) - 1 - token_id])
    assert found == pytest.approx([exact, exact], abs=1e-4)


# ---- the draw


@given(probabilities(), chances)
def test_draw_is_the_inverse_of_the_running_sum(p: Logits, chance: float) -> None:
    total = sum(float(x) for x in p if x)
    running = 0.0
    for expected in np.flatnonzero(p):
        running += float(p[expected])
        if running > chance * total:
            break
    assert draw(p, chance) == expected
    assert p[draw(p, chance)] > 0


def test_draw_takes_each_token_as_often_as_its_probability_says() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3], np.float32)
    drawn = [draw(p, uniform(1, 0, i)) for i in range(20_000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20_000, p, atol=0.015)


def test_random_numbers_are_uniform_and_differ_with_seed_sample_and_position() -> None:
    numbers = []
    for seed in (0, 1, 2**63 - 1):
        for sample in range(10):
            numbers += [uniform(seed, sample, position) for position in range(100)]
    assert len(set(numbers)) == len(numbers) == 3_000
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert np.mean(numbers) == pytest.approx(0.5, abs=0.02)


def test_a_random_number_is_pinned() -> None:
    """A seed generates the same text in every release."""
    assert uniform(1, 2, 3) == 0.7069603535111167


# ---- the whole ladder


def choose_one(logits: Logits, config: SampleConfig, chance: float) -> int:
    (token_id,) = choose(logits[None], config, [chance])
    return token_id


@given(probabilities(), chances)
def test_temperature_0_takes_the_likeliest_and_of_equal_ones_the_lowest_id(
    p: Logits, chance: float
) -> None:
    config = SampleConfig(temperature=0, top_p=0.5)
    assert choose_one(p, config, chance) == likeliest_first(p)[0]


@given(probabilities(), chances, st.sampled_from([1e-300, 1e-40, 1e-9]))
def test_a_tiny_temperature_chooses_among_the_likeliest(
    p: Logits, chance: float, temperature: float
) -> None:
    assert p[choose_one(p, SampleConfig(temperature=temperature), chance)] == max(p)


fractions = st.none() | st.floats(0.01, 1)


@given(probabilities(), chances, st.none() | st.integers(1, 9), fractions, fractions)
def test_filters_apply_in_the_order_top_k_top_p_min_p(
    p: Logits, chance: float, k: int | None, mass: float | None, share: float | None
) -> None:
    steps: list[tuple[Callable[..., NDArray[np.intp]], float | None]] = [
        (top_k, k),
        (top_p, mass),
        (min_p, share),
    ]
    kept = np.arange(p.size)
    renormalized = softmax(p, 0.7)
    for keep, setting in steps:
        if setting is not None:
            stay = keep(renormalized, setting)
            kept = kept[stay]
            renormalized = renormalized[stay] / renormalized[stay].sum()
    config = SampleConfig(temperature=0.7, top_k=k, top_p=mass, min_p=share)
    assert choose_one(p, config, chance) == kept[draw(renormalized, chance)]


@settings(max_examples=20)
@given(st.lists(chances, min_size=1, max_size=9), st.sampled_from([0.0, 0.8]), st.integers(0, 99))
def test_a_row_is_chosen_as_if_it_were_alone(
    row_chances: list[float], temperature: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((len(row_chances), 500)).astype(np.float32) * 4
    config = SampleConfig(temperature=temperature, top_p=0.9)
    together = choose(rows, config, row_chances)
    logprobs = log_probabilities(rows, together)
    for row, chance, token_id, logprob in zip(rows, row_chances, together, logprobs, strict=True):
        assert choose_one(row, config, chance) == token_id
        assert log_probabilities(row[None], [token_id]) == [logprob]
