"""What attacked requests do to a service: a simulated server with a queue and dynamic batching.

    requests ── Poisson, a share attacked ──► queue ──► machines: batch, wait, run ──► answers

A machine that is free takes the first request of the queue, then more until the batch is full or
``max_wait`` has passed, and runs the batch; the time that takes is drawn from measured batches of
the same make-up (``batching.time_batches``). Discrete-event simulation with SimPy (extra
``[serving]``); ``benchmarks/serving.py`` compares it with a real server, ``docs/serving.md`` holds
the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effattack.errors import MeasurementError, MissingPackage, UsageError, install

Service = Callable[[int, int], float]
"""(images in the batch, attacked ones among them) -> seconds to run it; see
:func:`effattack.measure.batching.drawn_from`."""


class Server(NamedTuple):
    """How requests are batched, and by how many machines."""

    max_batch: int
    """Images per batch at most."""
    max_wait: float
    """Seconds that the first request of a batch waits for more, once a machine has taken it."""
    machines: int = 1
    """Equal ones, fed from one queue."""


class Summary(NamedTuple):
    """What an operator sees."""

    mean: float
    """Seconds from arrival to answer, as the following."""
    p50: float
    p95: float
    p99: float
    throughput: float
    """Answers per second."""
    utilisation: float
    """Share of the time that machines run batches; near 1 the queue grows without bound."""


def simulate(
    service: Service,
    server: Server,
    rate: float,
    *,
    attacked: float = 0.0,
    requests: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Serve requests that arrive at random.

    Args:
        service: how long a batch takes.
        server: the policy.
        rate: requests per second, Poisson.
        attacked: share of them that are attacked, in [0, 1].
        requests: how many.
        seed: of arrivals and of which requests are attacked.

    Returns:
        One row per request in the order of arrival: ``arrived``, ``attacked``, ``started`` (its
        batch ran), ``answered``, ``batch`` (number of its batch), all times in seconds.

    Raises:
        UsageError: for settings out of range, or without SimPy.
    """
    if rate <= 0 or not 0 <= attacked <= 1 or requests < 1:
        raise UsageError(f"rate {rate}, attacked {attacked}, requests {requests}: give a positive "
                         "rate, a share in [0, 1] and one request")  # fmt: skip
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, requests))
    return serve(service, server, arrivals, rng.random(requests) < attacked)


def serve(
    service: Service, server: Server, arrivals: np.ndarray, attacked: np.ndarray
) -> pd.DataFrame:
    """Serve requests that arrive at given moments.

    Args:
        service: how long a batch takes.
        server: the policy.
        arrivals: (N,) seconds, ascending.
        attacked: (N,) bool, requests of the second kind that ``service`` tells apart.

    Returns:
        What :func:`simulate` returns.

    Raises:
        UsageError: for a server that serves nothing, or without SimPy.
    """
    if min(server) < 0 or server.max_batch < 1 or server.machines < 1:
        raise UsageError(
            f"{server}: max_batch and machines start at 1, and nothing waits for less than 0 s"
        )
    simpy = _simpy()
    started, answered = np.zeros(len(arrivals)), np.zeros(len(arrivals))
    batch_of = np.zeros(len(arrivals), dtype=int)
    world = simpy.Environment()
    queue = simpy.Store(world)
    batches = count()

    def arrive() -> Generator[Any, Any, None]:
        for request, moment in enumerate(arrivals):
            yield world.timeout(moment - world.now)
            queue.put(request)

    def machine() -> Generator[Any, Any, None]:
        while True:
            batch = [(yield queue.get())]
            last = world.timeout(server.max_wait)
            while len(batch) < server.max_batch:
                following = queue.get()
                if not following.triggered:
                    yield following | last
                if not following.triggered:
                    following.cancel()
                    break
                batch.append(following.value)
            started[batch] = world.now
            yield world.timeout(service(len(batch), int(attacked[batch].sum())))
            answered[batch] = world.now
            batch_of[batch] = next(batches)

    world.process(arrive())
    for _ in range(server.machines):
        world.process(machine())
    world.run()
    columns = {"arrived": arrivals, "attacked": attacked, "started": started}
    return pd.DataFrame({**columns, "answered": answered, "batch": batch_of})


def summary(served: pd.DataFrame, machines: int = 1) -> Summary:
    """Latency, throughput and utilisation of what :func:`simulate` or a real server served."""
    latency = served.answered - served.arrived
    p50, p95, p99 = latency.quantile([0.5, 0.95, 0.99])
    lasted = served.answered.max() - served.arrived.min()
    batches = served.drop_duplicates("batch")
    busy = (batches.answered - batches.started).sum() / (machines * lasted)
    return Summary(latency.mean(), p50, p95, p99, len(served) / lasted, busy)


def machines_for(
    p99: float, service: Service, server: Server, rate: float, *, at_most: int = 1024, **load: Any
) -> int:
    """The fewest machines with which 99 % of the requests are answered within ``p99`` seconds.

    Args:
        p99: seconds.
        service, server, rate, load: see :func:`simulate`.
        at_most: machines to try.

    Raises:
        MeasurementError: if that many are not enough: then a lone batch is too slow.
    """

    def enough(machines: int) -> bool:
        served = simulate(service, server._replace(machines=machines), rate, **load)
        return summary(served).p99 <= p99

    high = 1
    while not enough(high):
        if high >= at_most:
            raise MeasurementError(
                f"{at_most} machines do not answer 99 % within {p99 * 1e3:.3g} ms: one batch alone "
                "takes longer; allow more time, or smaller batches"
            )
        high = min(2 * high, at_most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def operator_table(
    service: Service,
    server: Server,
    rate: float,
    shares: Sequence[float] = (0.0, 0.01, 0.1, 0.5, 1.0),
    *,
    slack: float = 1.25,
    hourly: float = 1.0,
    **load: Any,
) -> pd.DataFrame:
    """What each share of attacked requests costs an operator.

    Args:
        service, server, rate, load: see :func:`simulate`.
        shares: of attacked requests.
        slack: the fleet must keep the p99 of no attacked requests, times this; simulated quantiles
            are not exact.
        hourly: price of one machine and hour, in any currency.

    Returns:
        One row per share: ``attacked``, the fields of :class:`Summary` for ``server`` as given,
        ``machines`` (for the same p99; NaN where no number of them keeps it) and
        ``cost_per_million`` requests on that many.
    """
    target = slack * summary(simulate(service, server, rate, **load), server.machines).p99
    rows = []
    for share in shares:
        seen = summary(simulate(service, server, rate, attacked=share, **load), server.machines)
        machines: float
        try:
            machines = machines_for(target, service, server, rate, attacked=share, **load)
        except MeasurementError:
            machines = float("nan")
        cost = machines * hourly / (rate * 3600) * 1e6
        row = {"attacked": share, **seen._asdict(), "machines": machines, "cost_per_million": cost}
        rows.append(row)
    return pd.DataFrame(rows)


def _simpy() -> Any:
    try:
        import simpy
    except ImportError as error:
        raise MissingPackage(f"SimPy does not import ({error}): {install('serving')}") from error
    return simpy
