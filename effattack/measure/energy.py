"""Energy of the deployed path, in joules per image, from counters that the hardware keeps.

One arm is looped over its images for windows of at least 5 s: NVML's counter moves every 20 to
100 ms, and shorter windows are mostly its rounding. The first window is discarded. A counter that
did not advance gives an empty result with the reason, never 0.

The values in a matrix product change its power by up to 40 % at equal shapes
(https://arxiv.org/abs/2409.18324): a ratio above 1 means little without that of a noise arm, and
of a static twin (:func:`energy_controls`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from effattack.counting.macs import count_macs
from effattack.errors import UsageError
from effattack.measure.clocks import deployed, synchronize
from effattack.measure.counters import Counter
from effattack.measure.guards import expect_paired
from effattack.measure.statistics import NOTHING, Interval, median_ratio
from effattack.victim import Victim

SHORTEST_WINDOW = 5.0
"""Seconds."""

Now = Callable[[], float]


class Energy(NamedTuple):
    """What one arm took."""

    joules_per_image: float
    """NaN where nothing could be measured."""
    images: int
    """How many were run in the window."""
    seconds: float
    """Length of the window."""
    reason: str = ""
    """Why ``joules_per_image`` is NaN."""


def joules_per_image(
    victim: Victim,
    images: Tensor,
    counter: Counter,
    *,
    window: float = SHORTEST_WINDOW,
    batch_size: int = 1,
    now: Now = time.perf_counter,
) -> Energy:
    """Loop the deployed path over images for two windows; the second one counts.

    Args:
        victim: whose deployed path is measured, in eval mode (restored afterwards).
        images: (B, *input_shape) in [0, 1]; a window is a whole number of passes over them.
        counter: one of :func:`available_counters`.
        window: seconds, at least 5; a longer pass makes a longer window.
        batch_size: images per call.
        now: the time in seconds.

    Raises:
        UsageError: for a shorter window, or no images.
    """
    return _windows(victim, (images, images), counter, window, batch_size, now)[1]


class EnergyRatio(NamedTuple):
    """Attacked against clean, by one counter."""

    ratio: Interval
    """Of joules per image, over pairs of windows; bounds are NaN below 6 pairs, all NaN where
    nothing could be measured."""
    joules_clean: float
    """Joules per image, mean over windows."""
    joules_attacked: float
    """Joules per image, mean over windows."""
    counter: str
    """Its name."""
    idle_watts: float
    """Power before the work, over a window of sleep; NaN if the counter did not advance."""
    reason: str = ""
    """Why all of it is NaN."""


def energy_ratio(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    counter: Counter,
    window: float = SHORTEST_WINDOW,
    *,
    repeats: int = 1,
    batch_size: int = 1,
    now: Now = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyRatio:
    """Joules per image of attacked over clean images, in windows paired in ABBA order.

    It takes ``(2 + 4 * repeats) * window`` seconds: one idle window, one discarded, then two pairs
    per repeat. Three repeats are the fewest that carry a 95 % interval.

    Args:
        victim, counter, window, batch_size, now: see :func:`joules_per_image`.
        clean: (B, *input_shape) in [0, 1].
        attacked: (B, *input_shape): the same images, attacked.
        repeats: quadruples of windows.
        sleep: waits for that many seconds; nothing else should run meanwhile.

    Raises:
        UsageError: for arms that do not pair up, no images, a short window, no repeats.
    """
    expect_paired(victim, clean, attacked)
    if repeats < 1:
        raise UsageError(f"repeats = {repeats}: give at least one")
    _check_window(window)
    idle = idle_watts(counter, window, now=now, sleep=sleep)
    order = (clean, attacked, attacked, clean) * repeats
    measured = _windows(victim, (clean, *order), counter, window, batch_size, now)[1:]
    if reason := next((energy.reason for energy in measured if energy.reason), ""):
        return EnergyRatio(NOTHING, nan, nan, counter.name, idle, reason)
    joules = [energy.joules_per_image for energy in measured]
    below, above = joules[0::4] + joules[3::4], joules[1::4] + joules[2::4]
    ratio = median_ratio(above, below)
    count = len(below)
    return EnergyRatio(ratio, sum(below) / count, sum(above) / count, counter.name, idle)


def idle_watts(
    counter: Counter,
    window: float = SHORTEST_WINDOW,
    *,
    now: Now = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Power while this process sleeps; NaN if the counter did not advance."""
    start, before = now(), counter.joules()
    sleep(window)
    joules = counter.joules() - before
    return joules / (now() - start) if joules > 0 else nan


def energy_controls(
    victim: Victim,
    twin: Victim,
    clean: Tensor,
    noise: Tensor,
    attacked: Tensor,
    counter: Counter,
    **settings: Any,
) -> pd.DataFrame:
    """Noise and attack, on the victim and on its static twin.

    The twin does the same work whatever it sees, so what moves its energy is the power of the
    values. An attack costs energy by its compute where its ratio on the victim lies above both its
    ratio on the twin and that of noise on the victim.

    Args:
        victim, counter, settings: see :func:`energy_ratio`.
        twin: the model without its mechanism; its MACs must not depend on the input.
        clean: (B, *input_shape) in [0, 1].
        noise: (B, *input_shape): the same images with random noise of the size of the attack.
        attacked: (B, *input_shape): the same images, attacked.

    Returns:
        A row per model and arm: ``model``, ``arm``, ``energy_ratio``, ``energy_low``,
        ``energy_high``, ``joules_clean``, ``joules_attacked``, ``idle_watts``, ``counter``,
        ``reason`` (why the others are empty).

    Raises:
        UsageError: for a twin that does not do the same work on all three arms, and as
            :func:`energy_ratio`.
    """
    arms = {"noise": noise, "attacked": attacked}
    size = settings.get("batch_size", 1)
    executed = [
        sum(count_macs(twin, batch) for batch in images.to(twin.device).split(size))
        for images in (clean, noise, attacked)
    ]
    if min(executed) < max(executed):
        raise UsageError(
            f"{twin.name} is no static twin: its MACs over one arm go from {min(executed):,} to "
            f"{max(executed):,} over another; give the model without its mechanism"
        )
    rows = []
    for model in (victim, twin):
        for arm, images in arms.items():
            found = energy_ratio(model, clean, images, counter, **settings)
            ratio = dict(
                zip(("energy_ratio", "energy_low", "energy_high"), found.ratio, strict=True)
            )
            rest = found._asdict()
            del rest["ratio"]
            rows.append({"model": model.name, "arm": arm, **ratio, **rest})
    return pd.DataFrame(rows)


def _windows(
    victim: Victim,
    arms: Sequence[Tensor],
    counter: Counter,
    window: float,
    batch_size: int,
    now: Now,
) -> list[Energy]:
    _check_window(window)
    if not len(arms[0]) or batch_size < 1:
        raise UsageError(
            f"{len(arms[0])} images in batches of {batch_size}: give at least one of both"
        )
    with deployed(victim, arms[0][:batch_size].to(victim.device)):
        return [
            _window(victim, images.to(victim.device).split(batch_size), counter, window, now)
            for images in arms
        ]


def _check_window(window: float) -> None:
    if not SHORTEST_WINDOW <= window < inf:
        raise UsageError(f"a window of {window} s is too short: use {SHORTEST_WINDOW:g} s or more")


def _window(
    victim: Victim, batches: Sequence[Tensor], counter: Counter, window: float, now: Now
) -> Energy:
    synchronize(victim.device)
    images, seconds = 0, 0.0
    start, before = now(), counter.joules()
    while seconds < window:
        for batch in batches:
            victim(batch)
            images += len(batch)
        synchronize(victim.device)
        seconds = now() - start
    joules = counter.joules() - before
    if joules <= 0:
        reason = f"{counter.name} did not advance in {seconds:.1f} s of work"
        return Energy(nan, images, seconds, reason)
    return Energy(joules / images, images, seconds)
