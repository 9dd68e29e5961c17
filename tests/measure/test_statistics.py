"""Intervals against closed forms."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from effattack.errors import UsageError
from effattack.measure.statistics import Interval, median_ratio, proportion

seconds = st.floats(1e-6, 1e3)
pairs = st.lists(st.tuples(seconds, seconds), min_size=6, max_size=30).map(np.array)


def all_nan(interval: Interval) -> bool:
    return all(isnan(bound) for bound in interval)


@given(pairs)
def test_value_is_the_geometric_median_of_the_ratios(arms: np.ndarray) -> None:
    attacked, clean = arms.T
    value, low, high = median_ratio(attacked, clean)
    ratios = np.sort(attacked / clean)
    middle = np.sqrt(ratios[(len(ratios) - 1) // 2] * ratios[len(ratios) // 2])
    assert value == pytest.approx(middle)
    assert ratios[0] * (1 - 1e-9) <= low <= high <= ratios[-1] * (1 + 1e-9)


@given(st.floats(0.01, 100), st.integers(6, 40))
def test_a_constant_ratio_is_found_with_certainty(ratio: float, n: int) -> None:
    clean = np.linspace(1, 2, n)
    assert median_ratio(ratio * clean, clean) == pytest.approx((ratio,) * 3)


@given(pairs, st.floats(0.01, 100))
def test_the_interval_scales_with_one_arm(arms: np.ndarray, factor: float) -> None:
    attacked, clean = arms.T
    scaled = median_ratio(factor * attacked, clean)
    assert scaled == pytest.approx(tuple(factor * b for b in median_ratio(attacked, clean)))


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(arms: np.ndarray, random: object) -> None:
    order = list(range(len(arms)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert median_ratio(*arms[order].T) == median_ratio(*arms.T)


@given(pairs, st.integers(0, 5))
def test_pairs_with_a_nan_are_dropped(arms: np.ndarray, at: int) -> None:
    holes = np.insert(arms, at, [[nan, 1.0], [1.0, nan]], axis=0)
    assert median_ratio(*holes.T) == median_ratio(*arms.T)


def test_no_pairs_give_nan() -> None:
    assert all_nan(median_ratio([], []))
    assert all_nan(median_ratio([nan], [1.0]))


@pytest.mark.parametrize(("confidence", "enough"), [(0.5, 2), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_too_few_pairs_leave_the_bounds_open(confidence: float, enough: int) -> None:
    ratios = np.full(enough, 3.0)
    assert median_ratio(ratios, ratios / 3, confidence=confidence) == pytest.approx((3, 3, 3))
    few = median_ratio(ratios[1:], ratios[1:] / 3, confidence=confidence)
    assert few.value == pytest.approx(3)
    assert isnan(few.low)
    assert isnan(few.high)
    assert not few.excludes(1)


@pytest.mark.parametrize("n", [6, 7, 16, 41, 200])
def test_the_bounds_are_the_order_statistics_of_the_sign_test(n: int) -> None:
    logs = np.random.default_rng(n).normal(size=n)
    _, low, high = median_ratio(np.exp(logs), np.ones(n))
    k = int(np.sum(np.exp(logs) <= low * (1 + 1e-12)))
    assert (low, high) == pytest.approx(tuple(np.exp(np.sort(logs)[[k - 1, n - k]])))
    assert binom.cdf(k - 1, n, 0.5) <= 0.025 < binom.cdf(k, n, 0.5)


@pytest.mark.parametrize("n", [7, 16, 30])
def test_the_interval_covers_the_true_median_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    trials = [median_ratio(np.exp(rng.standard_t(2, n)), np.ones(n)) for _ in range(400)]
    assert np.mean([not interval.excludes(1) for interval in trials]) > 0.95


@pytest.mark.parametrize(
    ("attacked", "clean"),
    [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([0.0], [1.0]), ([1.0], [-1.0]), ([np.inf], [1.0])],
)
def test_arms_that_cannot_be_compared_are_refused(attacked: list, clean: list) -> None:
    with pytest.raises(UsageError):
        median_ratio(attacked, clean)


@pytest.mark.parametrize("confidence", [1.0, 0.0, nan])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError):
        median_ratio([1.0], [1.0], confidence=confidence)
    with pytest.raises(UsageError):
        proportion(1, 2, confidence=confidence)


def test_shares_of_seeds_lie_between_the_counts() -> None:
    below, between, above = (proportion(k, 20) for k in (7, 7.5, 8))
    for bound in range(3):
        assert below[bound] < between[bound] < above[bound]


@given(st.integers(1, 500), st.data())
def test_proportion_inverts_the_binomial_tails(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    value, low, high = proportion(k, n)
    assert value == k / n
    assert low <= value <= high
    assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx(0.025)


@given(st.integers(1, 300), st.floats(0.5, 0.999))
def test_proportion_of_none_has_a_closed_form(n: int, confidence: float) -> None:
    high = 1 - ((1 - confidence) / 2) ** (1 / n)
    assert proportion(0, n, confidence=confidence) == pytest.approx((0, 0, high))
    assert proportion(n, n, confidence=confidence) == pytest.approx((1, 1 - high, 1))


def test_proportion_of_no_samples_is_nan() -> None:
    assert all_nan(proportion(0, 0))


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(UsageError):
        proportion(successes, n)
