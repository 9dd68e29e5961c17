"""The simulated server against closed forms of queueing theory."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effattack.errors import MeasurementError, UsageError

pytest.importorskip("simpy")

from effattack.measure.serving import (
    Server,
    Service,
    machines_for,
    operator_table,
    simulate,
    summary,
)

ALONE = Server(max_batch=1, max_wait=0.0)
REQUESTS = 15_000


def constant(seconds: float) -> Service:
    return lambda images, attacked: seconds


def exponential(seconds: float, seed: int = 0) -> Service:
    rng = np.random.default_rng([seed, 1])
    return lambda images, attacked: float(rng.exponential(seconds))


@pytest.mark.parametrize("use", [0.3, 0.6])
def test_m_d_1(use: float) -> None:
    """Pollaczek and Khinchine: mean wait = ρ s / (2 (1 - ρ))."""
    seen = summary(simulate(constant(1.0), ALONE, use, requests=REQUESTS))
    assert seen.mean == pytest.approx(1 + use / (2 * (1 - use)), rel=0.05)
    assert seen.utilisation == pytest.approx(use, rel=0.03)


@pytest.mark.parametrize("use", [0.3, 0.5])
def test_m_m_1(use: float) -> None:
    """The time in an M/M/1 system is exponential with mean s / (1 - ρ)."""
    seen = summary(simulate(exponential(1.0), ALONE, use, requests=REQUESTS))
    mean = 1 / (1 - use)
    assert seen.mean == pytest.approx(mean, rel=0.07)
    assert seen.p50 == pytest.approx(mean * math.log(2), rel=0.07)
    assert seen.p95 == pytest.approx(mean * math.log(20), rel=0.12)


def test_m_m_c() -> None:
    """Erlang's C formula: the wait of three machines at a load of 1.5 erlang."""
    c, erlang = 3, 1.5
    last = erlang**c / math.factorial(c) * c / (c - erlang)
    queued = last / (sum(erlang**k / math.factorial(k) for k in range(c)) + last)
    served = simulate(exponential(1.0, 2), Server(1, 0, c), erlang, requests=REQUESTS, seed=2)
    waited = (served.started - served.arrived).mean()
    assert waited == pytest.approx(queued / (c - erlang), rel=0.15)
    assert summary(served, machines=c).utilisation == pytest.approx(erlang / c, rel=0.05)


@given(
    max_batch=st.integers(1, 6),
    max_wait=st.sampled_from([0.0, 0.1, 1.0]),
    machines=st.integers(1, 3),
    rate=st.floats(0.1, 20),
    share=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_every_request_is_served_once_in_order_and_in_time(
    max_batch: int, max_wait: float, machines: int, rate: float, share: float
) -> None:
    asked: list[tuple[int, int]] = []

    def service(images: int, attacked: int) -> float:
        asked.append((images, attacked))
        return 0.1 * images + 0.2 * attacked

    server = Server(max_batch, max_wait, machines)
    served = simulate(service, server, rate, attacked=share, requests=60)
    sizes = np.bincount(served.batch)
    attacked = np.bincount(served.batch, weights=served.attacked)
    assert sizes.max() <= max_batch
    assert sorted(asked) == sorted(zip(sizes, attacked, strict=True))
    assert (np.diff(served.started) >= 0).all() or machines > 1
    assert (served.started >= served.arrived - 1e-9).all()
    took = 0.1 * sizes + 0.2 * attacked
    assert np.allclose(served.answered - served.started, took[served.batch])


def test_a_lone_request_waits_for_mates_in_vain() -> None:
    served = simulate(constant(1.0), Server(8, 0.25), 1e-3, requests=20)
    assert (served.answered - served.arrived).to_numpy() == pytest.approx(1.25)


def test_requests_that_arrive_together_fill_batches() -> None:
    served = simulate(constant(1.0), Server(4, 0.25), 1e6, requests=40)
    assert served.groupby("batch").size().tolist() == [4] * 10
    assert summary(served).throughput == pytest.approx(4, rel=0.05)


def test_machines_are_as_few_as_the_formula_says() -> None:
    """At one machine each, M/M/1 answers 99 % within ln(100) s / (1 - ρ)."""
    asked = {"rate": 0.5, "requests": 4000}
    bound = math.log(100) / 0.5
    assert machines_for(1.3 * bound, exponential(1.0), ALONE, **asked) == 1
    assert machines_for(0.6 * bound, exponential(1.0), ALONE, **asked) > 1
    assert machines_for(2.5, constant(1.0), ALONE, rate=10.0, requests=2000) in range(11, 20)


def test_a_batch_that_takes_too_long_cannot_be_mended_by_machines() -> None:
    with pytest.raises(MeasurementError, match="4 machines do not answer 99 % within 500 ms"):
        machines_for(0.5, constant(1.0), ALONE, rate=1.0, requests=50, at_most=4)


def test_attacked_requests_cost_an_operator_machines() -> None:
    table = operator_table(
        lambda images, attacked: 0.02 * images + 0.03 * attacked,
        Server(4, 0.05),
        20.0,
        shares=(0.0, 0.5, 1.0),
        requests=1500,
        hourly=3.6,
    )
    assert table.machines.iloc[0] == 1
    assert table.machines.is_monotonic_increasing
    assert table.machines.iloc[-1] >= 2
    assert table.p99.iloc[-1] > table.p99.iloc[0]
    cost = table.machines * 3.6 / (20 * 3600) * 1e6
    assert table.cost_per_million.to_numpy() == pytest.approx(cost.to_numpy())


def test_one_seed_one_history() -> None:
    first, second = (simulate(constant(1.0), Server(2, 0.1), 1.0, requests=50) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("server", "rate", "share"),
    [
        (Server(0, 0.0), 1.0, 0.0),
        (Server(1, -1.0), 1.0, 0.0),
        (Server(1, 0.0, 0), 1.0, 0.0),
        (ALONE, 0.0, 0.0),
        (ALONE, 1.0, 1.5),
    ],
)
def test_servers_that_serve_nothing_are_refused(server: Server, rate: float, share: float) -> None:
    with pytest.raises(UsageError):
        simulate(constant(1.0), server, rate, attacked=share)
