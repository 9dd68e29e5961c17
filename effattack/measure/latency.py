"""Latency of the deployed path: the same images clean and attacked, timed in ABBA order.

    image    0        1        2        3
    pass 0   A B B A  B A A B  A B B A  B A A B  ...
    pass 1   B A A B  A B B A  B A A B  A B B A  ...     ``repeats`` passes

A is clean, B attacked, in one process. Within a quadruple both arms are equally early on average,
so whatever drifts linearly (heat, a neighbour's load) adds the same to both. Every other quadruple
is mirrored, because the first call on an image is the slowest: with A always first, clean against
clean gave 0.993 and 14 % false alarms (digits_cnn_early_exit, busy CPU), mirrored 1.001 and 3 %.
What is left shows in :func:`aa_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from effattack.errors import UsageError
from effattack.measure.clocks import Call, Clock, clocks_for, deployed
from effattack.measure.statistics import Interval, median_ratio
from effattack.victim import Victim


def time_pairs(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    *,
    batch_size: int = 1,
    repeats: int = 3,
    clocks: Sequence[Clock] | None = None,
) -> pd.DataFrame:
    """Time ``victim(images)`` on each image, clean and attacked, in ABBA order.

    The victim runs in eval mode (restored afterwards) on its own device, images moved there
    before. Each clock has passes of its own, after a warm-up of its own.

    Args:
        victim: whose deployed path is timed.
        clean: (B, *input_shape) in [0, 1].
        attacked: (B, *input_shape): the same images, attacked, in the same order.
        batch_size: images per call; 1 is what the savings of most victims are made for.
        repeats: quadruples per image; the median over them is what counts.
        clocks: by default those of :func:`clocks_for`.

    Returns:
        One row per image and clock (per batch, if ``batch_size`` is above 1): ``image`` (index of
        the first one), ``images`` (how many), ``clock``, ``seconds_clean`` and
        ``seconds_attacked`` (of one image; NaN where the clock is too coarse to have moved),
        ``settled`` (whether the warm-up reached a stable median).

    Raises:
        UsageError: for arms that do not pair up, no images, or counts below 1.
    """
    _check(clean, attacked, batch_size, repeats)
    device = victim.device
    arms = (images.to(device).split(batch_size) for images in (clean, attacked))
    run: Callable[[Tensor], Tensor] = victim
    pairs = [(partial(run, a), partial(run, b)) for a, b in zip(*arms, strict=True)]
    first = np.arange(0, len(clean), batch_size)
    sizes = np.minimum(batch_size, len(clean) - first)
    frames = []
    with deployed(victim, clean[:batch_size].to(device)):
        for clock in clocks_for(device) if clocks is None else clocks:
            settled = warm_up(clock, pairs)
            passes = [
                [
                    quadruple(clock, a, b, mirrored=(row + turn) % 2 == 1)
                    for row, (a, b) in enumerate(pairs)
                ]
                for turn in range(repeats)
            ]
            seconds = np.median(np.array(passes), axis=0) / sizes[:, None]
            seconds[seconds <= 0] = np.nan
            columns = {
                "image": first,
                "images": sizes,
                "clock": clock.name,
                "seconds_clean": seconds[:, 0],
                "seconds_attacked": seconds[:, 1],
                "settled": settled,
            }
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def latency_ratio(
    timings: pd.DataFrame, clock: str = "wall", *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Attacked over clean by one clock: :func:`median_ratio` over the rows of `time_pairs`."""
    rows = timings[timings["clock"] == clock]
    return median_ratio(
        rows["seconds_attacked"], rows["seconds_clean"], confidence=confidence, seed=seed
    )


class AACheck(NamedTuple):
    """Clean against clean: what the protocol finds where there is nothing to find."""

    fires: bool
    """The interval excludes 1: this machine is too disturbed now for a verdict on latency."""
    interval: Interval
    """Of the ratio of the two clean arms; its distance from 1 is the spurious effect."""


def aa_check(
    victim: Victim,
    clean: Tensor,
    *,
    batch_size: int = 1,
    repeats: int = 3,
    clocks: Sequence[Clock] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, AACheck]:
    """Time clean images against a copy of themselves, by the protocol of :func:`time_pairs`.

    An undisturbed machine still fires in about ``1 - confidence`` of the checks.

    Returns:
        The check of each clock, by its name. Where one fires, give no verdict by that clock.
    """
    timings = time_pairs(
        victim, clean, clean.clone(), batch_size=batch_size, repeats=repeats, clocks=clocks
    )
    intervals = {
        str(clock): latency_ratio(timings, str(clock), confidence=confidence, seed=seed)
        for clock in timings["clock"].unique()
    }
    return {name: AACheck(interval.excludes(1), interval) for name, interval in intervals.items()}


def quadruple(clock: Clock, a: Call, b: Call, *, mirrored: bool = False) -> tuple[float, float]:
    """Mean seconds of ``a`` and of ``b``, called in the order a b b a (mirrored: b a a b)."""
    outer, inner = (b, a) if mirrored else (a, b)
    first, second, third, fourth = (clock.time(call) for call in (outer, inner, inner, outer))
    outside, inside = (first + fourth) / 2, (second + third) / 2
    return (inside, outside) if mirrored else (outside, inside)


def warm_up(
    clock: Clock,
    pairs: Sequence[tuple[Call, Call]],
    *,
    window: int = 10,
    tolerance: float = 0.05,
    at_most: int = 200,
    seconds: float = 10.0,
) -> bool:
    """Run every pair once, then the first one until its rolling median is stable.

    The first round meets every code path and every shape (exits taken, tokens kept), each of which
    may compile or allocate something on its first call.

    Args:
        clock: what reads the time.
        pairs: calls of the two arms; both belong to one reading.
        window: readings per median; two successive medians are compared.
        tolerance: relative difference up to which they are the same.
        at_most: readings until the warm-up gives up.
        seconds: of all readings together until it gives up, two windows at the least.

    Returns:
        Whether the median became stable.
    """
    for a, b in pairs:
        a(), b()
    a, b = pairs[0]
    readings: list[float] = []
    while len(readings) < 2 * window or (len(readings) < at_most and sum(readings) < seconds):
        readings.append(clock.time(lambda: (a(), b())))
        if len(readings) >= 2 * window:
            before, now = median(readings[-2 * window : -window]), median(readings[-window:])
            if abs(now - before) <= tolerance * before:
                return True
    return False


def _check(clean: Tensor, attacked: Tensor, batch_size: int, repeats: int) -> None:
    if clean.shape != attacked.shape:
        raise UsageError(
            f"clean images have shape {tuple(clean.shape)}, attacked {tuple(attacked.shape)}: "
            "give the same images in the same order"
        )
    if not len(clean):
        raise UsageError("there are no images to time: the batch is empty")
    if batch_size < 1 or repeats < 1:
        raise UsageError(f"batch_size is {batch_size}, repeats {repeats}: both start at 1")
