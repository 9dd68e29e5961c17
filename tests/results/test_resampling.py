"""Intervals over inputs: exact where there is a closed form, and as wide as they say."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effattack.errors import UsageError
from effattack.measure.statistics import Floats, Interval, proportion
from effattack.results import resampling
from effattack.results.resampling import (
    Sample,
    compared,
    interval,
    macs_ratio,
    mean,
    savings,
    savings_retained,
)

INPUTS = (6, 10, 20, 60, 200)
MOVING = (0, 0.02, 0.2, 0.5, 0.98, 1)
CEILING = 100.0
work = st.tuples(st.floats(0, 99), st.floats(0, 100))
inputs = st.sampled_from([6, 30]).flatmap(lambda n: st.lists(work, min_size=n, max_size=n))


def bounded(values: Floats, confidence: float = 0.95) -> Interval:
    """The mean of values in [0, 1]."""
    sample = Sample(np.asarray(values, dtype=float)[:, None], np.zeros(1), np.ones(1))
    return interval(mean, sample, confidence)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(INPUTS), st.data())
def test_where_all_are_0_or_1_it_is_the_binomial_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    found, exact = bounded(np.arange(n) < k), proportion(k, n)
    assert found == pytest.approx(exact, abs=0.012)


@pytest.mark.parametrize("n", INPUTS)
@pytest.mark.parametrize("confidence", [0.95, 0.995])
def test_none_of_n_has_a_closed_form(n: int, confidence: float) -> None:
    low, high = bounded(np.zeros(n), confidence)[1:]
    assert low == 0
    assert high == pytest.approx(1 - ((1 - confidence) / 2) ** (1 / n), rel=0.05)


def test_equal_headroom_scales_to_a_share() -> None:
    """Inputs that saved all when clean: retained is the mean of shares in [0, 1], or above."""
    share = np.random.default_rng(0).random(40)
    found = savings(100 * share, np.zeros(40), np.full(40, 100.0))
    assert found.value == pytest.approx(1 - share.mean())
    assert found.low == pytest.approx(1 - bounded(share).high, abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(inputs)
def test_the_interval_holds_its_value_and_no_cost_above_the_ceiling(
    pairs: list[tuple[float, float]],
) -> None:
    clean, attacked = np.transpose(pairs)
    value, low, high = savings(attacked, clean, np.full(len(pairs), CEILING))
    assert -1e-9 <= low <= value <= high
    assert value == pytest.approx((CEILING - attacked).sum() / (CEILING - clean).sum())


@settings(deadline=None, max_examples=25)
@given(inputs, st.floats(0.01, 1e9))
def test_the_unit_of_work_does_not_matter(pairs: list[tuple[float, float]], unit: float) -> None:
    clean, attacked = np.transpose(pairs)
    most = np.full(len(pairs), CEILING)
    scaled = savings(unit * attacked, unit * clean, unit * most)
    assert scaled == pytest.approx(savings(attacked, clean, most))


def test_ceilings_are_of_each_input() -> None:
    ceiling = np.arange(10.0, 20.0)
    assert savings(ceiling, ceiling / 2, ceiling).value == 0
    assert savings(np.arange(5.0, 15.0), np.full(10, 5.0), ceiling).value == pytest.approx(50 / 95)


@pytest.mark.parametrize("ceiling", [20.0, float("nan")])
def test_without_savings_or_a_ceiling_there_is_no_value(ceiling: float) -> None:
    assert all(map(isnan, savings([20.0] * 8, [20.0] * 8, [ceiling] * 8)))
    assert all(map(isnan, savings([], [], [])))


def test_few_inputs_have_a_value_and_no_interval() -> None:
    value, low, high = savings([60.0] * 5, [20.0] * 5, [100.0] * 5)
    assert value == 0.5
    assert isnan(low)
    assert isnan(high)


def test_arrays_that_do_not_pair_up_are_refused() -> None:
    for arrays in (([1.0], [1.0, 2.0], [3.0]), ([1.0], [1.0], [3.0, 3.0])):
        with pytest.raises(UsageError, match="one value per image"):
            savings(*arrays)


def test_memory_does_not_grow_with_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = bounded(values)
    monkeypatch.setattr(resampling, "AT_ONCE", 50_000)
    monkeypatch.setattr(resampling, "FEWEST_DRAWS", resampling.DRAWS)
    assert bounded(values) == pytest.approx(whole, abs=0.01)


def drawn(rng: np.random.Generator, n: int, moving: float, gain: str) -> tuple[Floats, Floats]:
    """Attacked and clean MACs of inputs of which some move; below clean for ``less``."""
    clean = rng.uniform(20, 80, n)
    room = -clean if gain == "less" else CEILING - clean
    share = np.ones(n) if gain == "all" else rng.random(n)
    return clean + (rng.random(n) < moving) * share * room, clean


@pytest.mark.parametrize("gain", ["all", "part", "less"])
@pytest.mark.parametrize("moving", MOVING)
def test_it_covers_as_often_as_it_says(moving: float, gain: str) -> None:
    """Where few move, the percentile bootstrap covered in 7 to 70 % of these."""
    rng = np.random.default_rng(0)
    attacked, clean = drawn(rng, 400_000, moving, gain)
    truth = 1 - (attacked - clean).sum() / (CEILING - clean).sum()
    for n in (6, 20):
        found = [savings(*drawn(rng, n, moving, gain), np.full(n, CEILING)) for _ in range(40)]
        held = [low - 1e-9 <= truth <= high + 1e-9 for _, low, high in found]
        assert np.mean(held) >= 0.9


counts = st.lists(st.integers(1, 10**9), min_size=30, max_size=30).map(np.array)


@settings(deadline=None, max_examples=25)
@given(counts)
def test_the_same_again_is_no_change(values: np.ndarray) -> None:
    numbers = np.stack([2.0 * values, 1.0 * values], axis=1)

    def change(means: Floats) -> Floats:
        return macs_ratio(means[..., :2]) / macs_ratio(means[..., 2:])

    assert not interval(change, compared(change, numbers, numbers)).excludes(1)


def difference(means: Floats) -> Floats:
    return means[..., 0] - means[..., 1]


@pytest.mark.parametrize("n", INPUTS)
@pytest.mark.parametrize("worse", [0, 1, 3, 6])
def test_equal_changes_are_judged_as_by_the_sign_test(n: int, worse: int) -> None:
    """k inputs got worse by as much, and the rest did not change: 2 ** -k by chance."""
    now, then = (np.arange(n) < worse)[:, None] * 1.0, np.zeros((n, 1))
    found = interval(difference, compared(difference, now, then), 0.95)
    assert (found.low > 0) == (0.5**worse < 0.025)


@pytest.mark.parametrize("n", [6, 10, 20, 60])
@pytest.mark.parametrize("moving", [0.02, 0.5, 0.98])
def test_without_a_change_alarms_are_as_rare_as_said(n: int, moving: float) -> None:
    rng = np.random.default_rng(0)

    def shares() -> Floats:
        attacked, clean = drawn(rng, n, moving, "part")
        return np.stack([attacked, clean, np.full(n, CEILING)], axis=1)

    def change(means: Floats) -> Floats:
        return savings_retained(means[..., :3]) - savings_retained(means[..., 3:])

    found = [interval(change, compared(change, shares(), shares())) for _ in range(60)]
    assert np.mean([each.excludes(0) for each in found]) <= 0.05 + 0.05
