"""The statistics do on made-up data what their names promise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tests.experiments.made_up import pairs, verdict
from tinygpt.experiments import statistics
from tinygpt.experiments.statistics import (
    LEVELS,
    Interval,
    document_intervals,
    holm,
    mcnemar,
    over_both,
    seed_interval,
    seeds_for,
    seeds_needed,
    sign_flip,
    t_power,
)


def test_the_sign_flip_test_counts_all_signs():
    rng = np.random.default_rng(0)
    for count in (2, 5, 8):
        differences = rng.normal(0.4, 1, count)
        signs = np.array(list(itertools.product((1, -1), repeat=count)))
        means = (signs * differences).mean(axis=1)
        as_far = np.abs(means) >= abs(differences.mean()) * (1 - 1e-12)
        assert sign_flip(differences) == pytest.approx(as_far.mean())
    assert sign_flip(np.abs(rng.normal(0, 1, 6))) == pytest.approx(1 / 32)
    assert sign_flip(np.zeros(6)) == 1
    assert sign_flip(rng.normal(2, 1, 30)) < 0.001  # drawn at random


def test_intervals_need_two_values_and_are_points_where_nothing_varies():
    assert seed_interval(np.array([0.1]), 0.95) is None
    assert seed_interval(np.array([0.1, 0.1]), 0.95) == (0.1, 0.1)
    assert document_intervals(np.array([1.0]), np.array([5.0]), [0.95]) == [None]
    (point,) = document_intervals(np.array([2.0, 4.0]), np.array([10.0, 20.0]), [0.95])
    assert point == pytest.approx((0.2, 0.2))
    low, high = seed_interval(np.array([1.0, 2.0, 3.0]), 0.95)
    assert (low, high) == pytest.approx(
        (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), 1e-6
    )


def test_a_document_counts_by_its_bytes():
    differences = np.array([0.0] * 30 + [3_000.0])
    weights = np.array([10.0] * 30 + [3_000.0])
    ((low, high),) = document_intervals(differences, weights, [0.95])
    assert low < 3_000 / 3_300 < high


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, None, 0.01], [1.0, None, 0.03]),  # three were planned
        ([0.02], [0.06]),
    ],
)
def test_holm_multiplies_by_what_is_left(p_values, expected):
    found = holm(p_values, 3)
    assert [p if p is None else round(p, 9) for p in found] == expected


def test_mcnemar_is_a_binomial_test_of_the_pairs_that_disagree():
    assert mcnemar(6, 0) == pytest.approx(1 / 32)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) == 1


def test_seeds_needed_are_the_fewest_whose_smallest_p_value_is_at_the_level():
    for level in LEVELS:
        for comparisons in range(1, 9):
            seeds = seeds_needed(comparisons, level)
            assert comparisons * 2 / 2**seeds <= level * (1 + 1e-12)
            assert comparisons * 2 / 2 ** (seeds - 1) > level
    assert [seeds_needed(1, level) for level in LEVELS] == [6, 8, 9]
    assert sum(LEVELS) == pytest.approx(0.05)


def test_seeds_for_an_effect_give_the_power_and_one_fewer_does_not():
    seeds = seeds_for(0.01, 0.01, 1, LEVELS[1])
    assert seeds is not None
    assert t_power(0.01, 0.01, seeds, LEVELS[1]) >= 0.8
    assert t_power(0.01, 0.01, seeds - 1, LEVELS[1]) < 0.8
    assert seeds_for(0.01, 0.1, 1, LEVELS[1]) is None
    assert seeds_for(0.01, 0.0, 1, LEVELS[1]) == seeds_needed(1, LEVELS[1])


def test_power_of_the_t_test_is_that_of_simulated_tests():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.8, 1, (20_000, 8))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert t_power(0.8, 1, 8, 0.05) == pytest.approx((p < 0.05).mean(), abs=0.012)


def coverage_over_seeds(draws: int, seeds: int) -> float:
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(draws):
        low, high = seed_interval(rng.normal(0.3, 1, seeds), 0.95)
        hits += low <= 0.3 <= high
    return hits / draws


def coverage_over_documents(draws: int, documents: int) -> float:
    """Of the ratio for all documents there could be; their sizes and differences are skewed."""
    rng = np.random.default_rng(documents)
    hits = 0
    for _ in range(draws):
        sizes = rng.lognormal(6, 0.5, documents)
        differences = (0.3 + rng.gamma(2, 1, documents) - 2) * sizes
        ((low, high),) = document_intervals(differences, sizes, [0.95])
        hits += low <= 0.3 <= high
    return hits / draws


def false_alarms(draws: int, document_spread: float) -> float:
    """How often any of three looks at more and more seeds finds a difference where there is none.

    Over 60 documents, a spread of 0.03 makes the mean vary as much as 6 seeds do.
    """
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(draws):
        cells = pairs(rng, effect=0.0, seeds=12, document_spread=document_spread)
        looks = [verdict(cells, look, seeds) for look, seeds in ((1, 6), (2, 9), (3, 12))]
        alarms += "better" in looks or "worse" in looks
    return alarms / draws


def found(draws: int, effect: float, seeds: int) -> float:
    """How often a true effect is found at the first look, and is the right way round."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(draws):
        hits += verdict(pairs(rng, effect=effect, seeds=seeds, document_spread=0.001)) == "worse"
    return hits / draws


def said_equal(draws: int, effect: float) -> float:
    """How often "no difference beyond 0.01" is said of a difference."""
    rng = np.random.default_rng(2)
    said = 0
    for _ in range(draws):
        cells = pairs(rng, effect=effect, seeds=6, spread=0.006, document_spread=0.01)
        said += verdict(cells) == "no difference"
    return said / draws


def theory(effect: float, spread: float, seeds: int) -> float:
    """How often the sign-flip test and the t test at the first level both find an effect."""
    draws = np.random.default_rng(3).normal(effect, spread, (20_000, seeds))
    t_finds = stats.ttest_1samp(draws, 0, axis=1).pvalue <= LEVELS[0]
    if seeds == seeds_needed(1, LEVELS[0]):
        flip_finds = (draws > 0).all(axis=1)
        return float((t_finds & flip_finds).mean())
    return float(t_finds.mean())  # with many seeds, both tests are alike


def test_a_few_made_up_experiments_go_as_theory_says(monkeypatch):
    """A quick sample of the proof below; the limits are four standard errors."""
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    assert coverage_over_seeds(300, 6) == pytest.approx(0.95, abs=0.05)
    assert coverage_over_documents(150, 200) > 0.86
    assert false_alarms(40, 0.03) <= 0.15
    assert found(40, 0.02, 6) == pytest.approx(theory(0.02, 0.01, 6), abs=0.25)


def test_without_the_levels_of_the_looks_there_would_be_more_false_alarms():
    """The control: three looks at 5 % each."""
    draws = np.random.default_rng(0).normal(0, 1, (4_000, 12))
    looks = [stats.ttest_1samp(draws[:, :seeds], 0, axis=1).pvalue < 0.05 for seeds in (6, 9, 12)]
    assert np.any(looks, axis=0).mean() > 0.07


def test_intervals_over_seeds_alone_and_documents_alone_would_make_false_alarms():
    """The control of over_both: means that vary by 1 with the seeds and by 1 with the documents."""
    means = np.random.default_rng(0).normal(0, math.sqrt(2), 4_000)
    alone = Interval(-1.96, 1.96)
    apart = np.mean([Interval(m - 1.96, m + 1.96).sign != 0 for m in means])
    together = np.mean(
        [over_both(m, [Interval(m + alone.low, m + alone.high)] * 2).sign != 0 for m in means]
    )
    assert apart > 0.14
    assert together == pytest.approx(0.05, abs=0.015)


@pytest.mark.proof
def test_made_up_experiments_go_as_theory_says(monkeypatch, figure):
    """The figures of docs/guarantees.md."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1_000)
    over_seeds = {seeds: coverage_over_seeds(4_000, seeds) for seeds in (6, 9)}
    over_documents = {count: coverage_over_documents(1_000, count) for count in (20, 60, 500)}
    alarms = {spread: false_alarms(1_000, spread) for spread in (0.0, 0.03, 0.1)}
    equal = {effect: said_equal(1_000, effect) for effect in (0.0, 0.01)}
    powers = {
        (effect, seeds): (found(600, effect, seeds), theory(effect, 0.01, seeds))
        for effect, seeds in ((0.01, 6), (0.02, 6), (0.01, 12), (0.015, 12))
    }
    print(f"coverage of 95 % intervals over seeds: {over_seeds}")
    print(f"coverage of 95 % intervals over documents: {over_documents}")
    print(f"false alarms over three looks, by the spread over documents: {alarms}")
    print(f'"no difference beyond 0.01" by the true difference: {equal}')
    for (effect, seeds), (rate, expected) in powers.items():
        print(f"effect {effect}, {seeds} seeds: found {rate:.1%}, theory {expected:.1%}")
    assert all(0.94 <= rate <= 0.96 for rate in over_seeds.values())
    assert over_documents[20] >= 0.88
    assert over_documents[60] >= 0.91
    assert over_documents[500] >= 0.93
    assert max(alarms.values()) <= 0.05
    assert equal[0.01] <= 0.05 < 0.5 < equal[0.0]
    for rate, expected in powers.values():
        assert rate == pytest.approx(expected, abs=0.06)
    wrong = round(1_000 * max(alarms.values()))
    figure("verdict", f"made-up questions without a difference, {wrong} answered", 1_000, bad=None)
