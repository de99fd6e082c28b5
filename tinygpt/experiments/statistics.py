"""The statistics of an experiment: intervals, exact tests, and how many seeds an answer takes.

Arms are paired: equal seeds give equal batches, and equal initial weights where shapes are equal.
So every test is about differences between the two models of a seed.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVELS = (1 / 32, 1 / 80, 1 / 160)
"""Of the first, second and third look at a question; together 1/20."""

ROUNDING = 1 + 1e-9  # p values are sums of powers of 1/2, and compared with such levels
EXACT_SEEDS = 17  # up to which all sign flips are counted; above, RANDOM_FLIPS are drawn
RANDOM_FLIPS = 200_000
RESAMPLES = 4_000
BATCH = 1 << 22  # numbers that a bootstrap holds at once
POWER = 0.8
MOST_SEEDS = 50  # that anybody is advised to take

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """Where a difference probably lies."""

    low: float
    high: float

    @property
    def sign(self) -> int:
        """-1 or 1 if all of it is on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def is_within(self, bound: float) -> bool:
        """Whether no part of it is farther from 0 than the bound."""
        return -bound <= self.low and self.high <= bound


def seed_interval(differences: Numbers, confidence: float) -> Interval | None:
    """The paired t interval of the mean difference (Student 1908); None for fewer than two.

    Args:
        differences: one a seed, (n,).
        confidence: e.g., 0.95.
    """
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return Interval(float(differences[0]), float(differences[0]))
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    return Interval(float(low), float(high))


def document_intervals(
    differences: Numbers, weights: Numbers, confidences: Sequence[float]
) -> list[Interval | None]:
    """Bootstrap intervals of sum(differences) / sum(weights) over documents.

    Percentiles of a bootstrap are too narrow by as much as a normal interval is beside one by t, so
    they are taken as much farther out (Hesterberg 2015, §5.3, the expanded percentile interval).

    Args:
        differences: the mean over seeds of what two models differ by on each document, (n,).
        weights: of the documents, e.g., their bytes, (n,).
        confidences: e.g., 0.95 and 0.9; an interval for each.
    Returns:
        None for fewer than two documents.
    """
    count = len(differences)
    if count < 2:
        return [None for _ in confidences]

    def ratio(numerators: Numbers, denominators: Numbers, axis: int) -> Numbers:
        return np.asarray(numerators.sum(axis=axis) / denominators.sum(axis=axis))

    with warnings.catch_warnings():  # of differences that are all equal
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (differences, weights),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, BATCH // count),
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
    intervals: list[Interval | None] = []
    for confidence in confidences:
        quantile = stats.t.isf((1 - confidence) / 2, count - 1) * math.sqrt(count / (count - 1))
        tail = stats.norm.sf(quantile)
        intervals.append(Interval(*np.quantile(drawn, [tail, 1 - tail]).tolist()))
    return intervals


def over_both(difference: float, intervals: Sequence[Interval | None]) -> Interval:
    """An interval of a difference that varies with the seed and, independently, with the document.

    The variances of both add up, and so do the squares of the half-widths. Without it, a difference
    that is as far from 0 as seeds alone and documents alone explain would be called one.

    Args:
        difference: the mean.
        intervals: over seeds, and over documents if there is one, of equal confidence.
    """
    known = [interval for interval in intervals if interval is not None]
    below = math.hypot(*(difference - interval.low for interval in known))
    above = math.hypot(*(interval.high - difference for interval in known))
    return Interval(difference - below, difference + above)


def sign_flip(differences: Numbers) -> float:
    """The two-sided p value of the sign-flip test (Fisher 1935, §21) of a mean difference of 0.

    It needs no assumption but that, without a difference, each sign is as likely as the other.

    Args:
        differences: one a seed, (n,); of more than EXACT_SEEDS, random flips are drawn.
    """
    if not np.any(differences):
        return 1.0
    exact = len(differences) <= EXACT_SEEDS

    def mean(values: Numbers, axis: int) -> Numbers:
        return np.asarray(values.mean(axis=axis))

    result = stats.permutation_test(
        (differences,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else RANDOM_FLIPS,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p value of the exact test of McNemar (1947) on pairs that disagree."""
    pairs = only_first + only_second
    return float(stats.binomtest(only_first, pairs).pvalue) if pairs else 1.0


def holm(p_values: Sequence[float | None], comparisons: int) -> list[float | None]:
    """p values adjusted for several comparisons (Holm 1979).

    Args:
        p_values: None where there is none.
        comparisons: how many were planned, at least as many as there are p values.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    ranked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, (comparisons - rank) * p))
        adjusted[place] = largest
    return adjusted


def seeds_needed(comparisons: int, level: float) -> int:
    """The fewest seeds with which the sign-flip test can reach a level, Holm's factor included."""
    return math.ceil(math.log2(2 * comparisons / level) - 1e-9)


def seeds_for(effect: float, spread: float, comparisons: int, level: float) -> int | None:
    """The seeds with which an effect is found in four of five experiments; None above MOST_SEEDS.

    Args:
        effect: the difference to find.
        spread: standard deviation of the paired differences.
        comparisons, level: see seeds_needed.
    """
    for seeds in range(max(2, seeds_needed(comparisons, level)), MOST_SEEDS + 1):
        if t_power(effect, spread, seeds, level / comparisons) >= POWER:
            return seeds
    return None


def t_power(effect: float, spread: float, seeds: int, level: float) -> float:
    """How often a two-sided paired t test finds an effect; arguments as of seeds_for."""
    if spread == 0:
        return 1.0
    limit = stats.t.isf(level / 2, seeds - 1)
    shift = abs(effect) / spread * math.sqrt(seeds)
    found = stats.nct.sf(limit, seeds - 1, shift) + stats.nct.cdf(-limit, seeds - 1, shift)
    return float(found)
