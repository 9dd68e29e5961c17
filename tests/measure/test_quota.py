"""A quota is never exceeded, on any stream; whom it costs answers depends on who shares it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import embedded, noise_images

from effattack import audit
from effattack.errors import NotApplicable, UsageError
from effattack.measure.quota import (
    Quota,
    Tenant,
    answered_within,
    answers,
    certified_work,
    stream,
    within_quota,
    work_in_window,
)

CHEAP = 10
requests_drawn = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 20), st.integers(0, 20).map(float)),
        st.integers(0, 60),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=50,
)


def served(drawn: list[tuple[float, int, int]], quota: Quota | None) -> pd.DataFrame:
    """Requests of (moment, extra work, account) under a quota; cheap answers are wrong."""
    arrived, extra, accounts = map(np.array, zip(*sorted(drawn), strict=True))
    frame = pd.DataFrame({"arrived": arrived, "extra_macs": extra.astype(float)})
    frame = frame.assign(wants=extra > 0, cheap_macs=float(CHEAP), cheap_right=False, right=True)
    return answered_within(frame, quota, accounts)


@settings(max_examples=80, deadline=None)
@given(requests_drawn, st.integers(0, 150), st.floats(0.1, 10))
def test_no_account_ever_causes_more_than_is_certified(
    drawn: list[tuple[float, int, int]], macs: int, window: float
) -> None:
    """Counted anew, window by window, without the code under test."""
    quota = Quota(macs, window)
    found = served(drawn, quota)
    seen, certified = work_in_window(found, window), certified_work(found, quota)
    rows = list(zip(found.arrived, found.account, found.macs, strict=True))
    for row, (end, account, _) in enumerate(rows):
        inside = [w for at, who, w in rows if who == account and end - window < at <= end]
        assert sum(inside) <= CHEAP * len(inside) + macs
        assert seen[row] == sum(inside)
        assert certified[row] == CHEAP * len(inside) + macs


@settings(max_examples=60, deadline=None)
@given(requests_drawn, st.integers(0, 150), st.floats(0.1, 10))
def test_nothing_is_refused_that_still_fits_and_accounts_do_not_meet(
    drawn: list[tuple[float, int, int]], macs: int, window: float
) -> None:
    found = served(drawn, Quota(macs, window))
    rows = list(found.itertuples())
    for position, row in enumerate(rows):
        assert row.refused == (row.extra_macs > 0 and not row.escalated)
        assert row.correct == (not row.refused)
        before = [one for one in rows[:position] if one.account == row.account and one.escalated]
        past = sum(one.extra_macs for one in before if one.arrived > row.arrived - window)
        assert not row.refused or past + row.extra_macs > macs
    for account, theirs in found.groupby("account"):
        alone = served([one for one in drawn if one[2] == account], Quota(macs, window))
        assert alone.escalated.tolist() == theirs.escalated.tolist()


def test_in_closed_form() -> None:
    """Ten a second, each wants 1, two per second are paid for: the first two of each window."""
    moments = np.arange(40) / 10
    found = within_quota(moments, np.ones(40), np.zeros(40), Quota(2, 1.0))
    assert found.sum() == 8
    assert np.flatnonzero(found).tolist() == [0, 1, 10, 11, 20, 21, 30, 31]
    assert within_quota(moments, np.ones(40), np.zeros(40), None).all()
    assert not within_quota(moments, np.ones(40), np.zeros(40), Quota(0.5, 1.0)).any()


def test_a_shared_quota_moves_the_damage_to_the_others() -> None:
    """One floods first: of its own account only his answers suffer, of a common one theirs do."""
    flood = [(k / 100, 5, 0) for k in range(100)]
    others = [(0.5 + k / 4, 5, 1) for k in range(2)]
    apart = served(flood + others, Quota(10, 1.0))
    assert apart[apart.account == 1].correct.all()
    assert apart[apart.account == 0].correct.sum() == 2
    together = served([(moment, work, 0) for moment, work, _ in flood + others], Quota(20, 1.0))
    theirs = together[together.arrived.isin([moment for moment, _, _ in others])]
    assert not theirs.correct.any()


def test_answers_are_those_of_the_victim() -> None:
    victim, images = embedded("digits_tinysaver_cascade"), noise_images(12, 3, (3, 32, 32))
    labels = torch.arange(12) % 10
    found = answers(victim, images, labels)
    seen = audit(victim, images)
    assert (found.cheap_macs + found.extra_macs).tolist() == seen.macs.tolist()
    assert found.right.tolist() == (seen.logits.argmax(1) == labels).tolist()
    assert found.wants.any()
    assert (found.wants == (found.extra_macs > 0)).all()
    with torch.no_grad():
        cheap = victim.models[0](images).argmax(1)
    assert found.cheap_right.tolist() == (cheap == labels).tolist()


def test_a_stream_is_each_tenants_own() -> None:
    inputs = pd.DataFrame({"wants": [True, False], "extra_macs": [3.0, 0.0]})
    one, two = Tenant("one", 5, inputs), Tenant("two", 50, inputs)
    both, alone = stream([one, two], 100, seed=1), stream([one], 100, seed=1)
    assert both.arrived.is_monotonic_increasing
    assert both[both.tenant == "one"].arrived.tolist() == alone.arrived.tolist()
    assert len(alone) == pytest.approx(500, rel=0.15)
    assert both[both.tenant == "two"].wants.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.skipif(not importlib.util.find_spec("simpy"), reason="needs effattack[serving]")
def test_a_quota_shortens_the_queue_of_the_others() -> None:
    """Escalations take 0.2 s each, and ten a second want one: without a quota, it never ends."""
    from effattack.measure.serving import Server, serve

    found = {}
    for quota in (None, Quota(2, 1.0)):
        requests = served([(k / 10, 1, 0) for k in range(200)], quota)
        queue = serve(
            lambda images, heavy: 0.001 * images + 0.2 * heavy,
            Server(1, 0.0),
            requests.arrived.to_numpy(),
            requests.escalated.to_numpy(),
        )
        found[quota] = (queue.answered - queue.arrived).quantile(0.9)
    assert found[None] > 10 > 1 > found[Quota(2, 1.0)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: within_quota(np.array([1.0, 0.0]), np.ones(2), np.zeros(2), None), "ascend"),
        (lambda: within_quota(np.zeros(1), np.array([0.5]), np.zeros(1), None), "whole number"),
        (lambda: within_quota(np.zeros(1), np.ones(1), np.zeros(1), Quota(-1, 1)), "give MACs"),
        (lambda: within_quota(np.zeros(1), np.ones(1), np.zeros(1), Quota(1, 0)), "give MACs"),
        (lambda: stream([], 1), "give one or more"),
        (lambda: stream([Tenant("a", 0, pd.DataFrame({"x": [1]}))], 1), "rates are positive"),
        (lambda: stream([Tenant("a", 1, pd.DataFrame({"x": [1]}))] * 2, 1), "each its name"),
    ],
)
def test_what_is_no_quota(bad: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bad()  # type: ignore[operator]


def test_a_victim_without_a_cheap_answer() -> None:
    with pytest.raises(NotApplicable, match="has no decision behind a first stage that answers"):
        answers(embedded("digits_vit_ats"), torch.rand(2, 3, 32, 32), torch.zeros(2))
