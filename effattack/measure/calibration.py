"""False-alarm rate and power of the latency protocol on this machine, by injected slowdowns.

A trial times clean images against copies of themselves; before the call on a copy returns, the
deployed path does a known amount of extra work. With none (A/A) every finding is a false alarm;
with 10 % of extra work, every trial should find a slowdown. Judged is what the protocol judges: the
bounds of :func:`~effattack.measure.statistics.median_ratio` over images.

The extra work is real: small matrix products on the victim's device, as many per image as take the
share of that image's own latency, both read as the least of several calls, which a neighbour's load
disturbs least. No clock runs during the injection, so what disturbs the victim disturbs the
extra work alike. The table prints the ratio that was measured beside the slowdown meant.

Beside it stands sequential timing, what most papers do: all passes over one arm, then all over the
other, and the mean latency of each. Images, seconds and interval are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.measure.clocks import Clock, deployed
from effattack.measure.guards import expect_deterministic, expect_own_device
from effattack.measure.latency import Pairs, moved, time_abba, warm_up
from effattack.measure.statistics import Floats, Interval, median_ratio, proportion
from effattack.victim import Victim

ABBA, SEQUENTIAL = "ABBA", "sequential"
SURE = 0.95
"""Share of the trials that must find a slowdown which counts as detectable."""


class Trial(NamedTuple):
    """One experiment."""

    slowdown: float
    """Extra work as a share of the image's own; 0 is A/A."""
    order: str
    """``"ABBA"``, the protocol, or ``"sequential"``."""
    trial: int
    seconds: float
    """It took, warm-up included."""
    ratio: float
    low: float
    high: float
    found: bool
    """A/A: a difference, which is a false alarm; else: that the slowed arm is slower."""


def calibrate(
    victim: Victim,
    images: Tensor,
    clock: Clock,
    *,
    slowdowns: Sequence[float] = (0.0, 0.03, 0.05, 0.1, 0.2),
    trials: int = 20,
    seconds: float = 5.0,
    finished: Callable[[Trial], None] = lambda trial: None,
) -> pd.DataFrame:
    """Run trials of every slowdown, in both orders, interleaved over the time that it takes.

    Args:
        victim: whose deployed path is timed.
        images: (B, *input_shape) in [0, 1]; the units. 6 are the fewest that carry an interval.
        clock: reads the time.
        slowdowns: extra work as shares; 0.1 makes an image take 10 % longer.
        trials: per slowdown and order.
        seconds: of timing per trial, at least, warm-up not counted.
        finished: called after each trial.

    Returns:
        One row per trial, with the fields of :class:`Trial`.

    Raises:
        UsageError: for settings that calibrate nothing, or an xdist worker.
        MeasurementError: for a victim whose forward is not deterministic.
    """
    if len(images) < 6 or trials < 1 or not 0 < seconds < float("inf"):
        raise UsageError(
            f"{len(images)} images, {trials} trials of {seconds} s: give at least 6 images, one "
            "trial and a time"
        )
    if not slowdowns or not all(0 <= slowdown < 10 for slowdown in slowdowns):
        raise UsageError(f"slowdowns {list(slowdowns)}: give shares of extra work from 0 to 10")
    expect_own_device()
    images = images.to(victim.device)
    rows = []
    with deployed(victim, images[:1]):
        expect_deterministic(victim, images)
        work = _Work(victim, images, clock)
        for trial in range(trials):
            for slowdown in slowdowns:
                for order, time_arms in ((ABBA, time_abba), (SEQUENTIAL, time_sequential)):
                    pairs = work.pairs(images, slowdown)
                    start = time.monotonic()
                    warm_up(clock, pairs)
                    clean, slowed = time_arms(clock, pairs, seconds=seconds).T
                    ratio = median_ratio(slowed, clean)
                    found = ratio.low > 1 if slowdown else ratio.excludes(1)
                    took = time.monotonic() - start
                    rows.append(Trial(slowdown, order, trial, took, *ratio, found))
                    finished(rows[-1])
    return pd.DataFrame(rows)


def time_sequential(clock: Clock, pairs: Pairs, repeats: int = 1, seconds: float = 0.0) -> Floats:
    """Passes over the first arm of all pairs for half of the time, then over the second.

    Returns:
        (pairs, 2) mean seconds of each call over its passes; NaN where the clock did not move.
    """
    means = []
    for arm in range(2):
        passes: list[list[float]] = []
        start = time.monotonic()
        while len(passes) < 2 * repeats or time.monotonic() - start < seconds / 2:
            passes.append([clock.time(pair[arm]) for pair in pairs])
        means.append(np.mean(passes, axis=0))
    return moved(np.stack(means, axis=1))


class Power(NamedTuple):
    """One row of the power table."""

    slowdown: float
    order: str
    trials: int
    found: int
    share: Interval
    """Found / trials, with its exact binomial interval."""
    ratio: float
    """Median over trials of the measured ratio."""
    spread: float
    """Between the 5th and the 95th percentile of it over trials."""
    seconds: float
    """Of a trial, warm-up included; mean."""


def power_table(trials: pd.DataFrame) -> list[Power]:
    """What was found, by slowdown and order."""
    table = []
    for (slowdown, order), rows in trials.groupby(["slowdown", "order"]):
        share = proportion(int(rows.found.sum()), len(rows))
        low, middle, high = rows.ratio.quantile([0.05, 0.5, 0.95])
        mean = rows.seconds.mean()
        found = int(rows.found.sum())
        table.append(Power(slowdown, order, len(rows), found, share, middle, high - low, mean))
    return table


def smallest_detectable(table: Sequence[Power]) -> float | None:
    """The smallest slowdown from which on ``SURE`` of the ABBA trials found it; None if none."""
    smallest = None
    for row in sorted((r for r in table if r.order == ABBA and r.slowdown), reverse=True):
        if row.share.value < SURE:
            break
        smallest = row.slowdown
    return smallest


class _Work:
    """The extra work, and how much of it is which share of each image's own."""

    def __init__(self, victim: Victim, images: Tensor, clock: Clock) -> None:
        self._victim = victim
        self._factor = torch.full((8, 8), 0.125, device=victim.device)
        self._product = torch.empty_like(self._factor)
        many = 200
        least = partial(_least, clock)
        least(partial(self._run, images[:1], many))
        unit = least(partial(self._extra, many)) / many
        self._units = [least(partial(self._run, image, 0)) / unit for image in images.split(1)]

    def pairs(self, images: Tensor, slowdown: float) -> Pairs:
        """Per image, the call of the clean arm and that of a copy with extra work."""
        arms = zip(images.split(1), images.clone().split(1), self._units, strict=True)
        return [
            (partial(self._run, clean, 0), partial(self._run, copy, round(slowdown * units)))
            for clean, copy, units in arms
        ]

    def _run(self, image: Tensor, units: int) -> None:
        self._victim(image)
        self._extra(units)

    def _extra(self, units: int) -> None:
        for _ in range(units):
            torch.mm(self._factor, self._factor, out=self._product)


def _least(clock: Clock, call: Callable[[], None], calls: int = 9) -> float:
    return min(clock.time(call) for _ in range(calls))
