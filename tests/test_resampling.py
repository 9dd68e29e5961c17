"""Intervals by resampling images: exact where there is nothing to draw, and as wide as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effattack.resampling import interval, macs_ratio, mean, resamples, savings_retained

counts = st.lists(st.integers(0, 10**9), min_size=1, max_size=30)


@given(counts)
def test_the_interval_holds_its_value(values: list[int]) -> None:
    found = interval(mean(values), resamples(len(values)))
    assert min(values) <= found.low <= found.value + 1e-3
    assert found.value - 1e-3 <= found.high <= max(values)
    assert found.value == pytest.approx(np.mean(values))


@given(counts)
def test_equal_images_leave_no_doubt(values: list[int]) -> None:
    clean = np.array(values) + 1
    weights = resamples(len(values))
    assert interval(savings_retained(clean, clean, clean.max() + 1), weights) == (1, 1, 1)
    assert interval(macs_ratio(clean * 3, clean), weights) == (3, 3, 3)


def test_savings_are_what_the_score_table_says() -> None:
    found = interval(savings_retained([30, 10], [10, 10], 50), resamples(2))
    assert found.value == 1 - 20 / 80
    assert (found.low, found.high) == (0.5, 1)
    assert interval(savings_retained([7, 7], [7, 7], 7), resamples(2)).value == 1


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    weights = resamples(60)
    found = [interval(mean(rng.random(60) < 0.7), weights) for _ in range(200)]
    assert 0.88 <= np.mean([not each.excludes(0.7) for each in found]) <= 0.99
