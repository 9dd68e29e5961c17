"""Latency of the deployed path: the same images clean and attacked, timed in ABBA order.

    image    0        1        2        3
    pass 0   A B B A  B A A B  A B B A  B A A B  ...
    pass 1   B A A B  A B B A  B A A B  A B B A  ...     ``repeats`` passes, or ``seconds`` of them

A is clean, B attacked, in one process. Both arms are called equally often, equally early and next
to each other, so what drifts (heat, a neighbour's load) meets both; mirroring takes turns at who
comes first. Images are the units. What counts of each arm is its least call, since a disturbance
can only make a call longer: on a core shared with other processes, means and medians over passes
missed slowdowns of 10 % that it found. The interval is that of
:func:`~effattack.measure.statistics.median_ratio` over images. How often all this finds what is
there, and what is not, ``effattack calibrate`` measures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np
import pandas as pd
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.measure.clocks import Call, Clock, clocks_for, deployed
from effattack.measure.environment import environment
from effattack.measure.guards import (
    expect_deterministic,
    expect_own_device,
    expect_paired,
    fitting,
)
from effattack.measure.statistics import Floats
from effattack.victim import Victim

Pairs = Sequence[tuple[Call, Call]]
"""Calls of the two arms, one pair per image (or batch)."""


def time_pairs(
    victim: Victim,
    clean: Batch,
    attacked: Batch,
    *,
    batch_sizes: Sequence[int] = (1,),
    repeats: int = 3,
    seconds: float = 0.0,
    clocks: Sequence[Clock] | None = None,
) -> pd.DataFrame:
    """Time ``victim(images)`` on each image, clean and attacked, in ABBA order.

    The victim runs in eval mode (restored afterwards) on its own device, images moved there
    before. Each clock has passes of its own, after a warm-up of its own.

    Args:
        victim: whose deployed path is timed.
        clean: inputs of the victim, such as images (B, *input_shape) in [0, 1].
        attacked: the same inputs, attacked, in the same order.
        batch_sizes: images per call: 1, which the savings of most victims are made for, and the
            deployment's. One that does not fit in memory is halved until it does, with a warning.
        repeats: the fewest quadruples per image; the least call of an arm is what counts.
        seconds: of passes, per clock and batch size, at least; warm-up not counted.
        clocks: by default those of :func:`clocks_for`.

    Returns:
        One row per batch size, clock and image (per batch, if above 1): ``batch_size``, ``image``
        (index of the first one), ``images`` (how many), ``clock``, ``seconds_clean`` and
        ``seconds_attacked`` (of one image; NaN where the clock is too coarse to have moved),
        ``settled`` (whether the warm-up reached a stable median), ``environment`` (JSON of
        :func:`~effattack.measure.environment.environment`, read after the last pass).

    Raises:
        UsageError: for arms that do not pair up, no images, counts below 1, or an xdist worker.
        MeasurementError: for a forward that gives other logits when run again.
    """
    _check(victim, clean, attacked, batch_sizes, repeats, seconds)
    expect_own_device()
    device = victim.device
    clean, attacked = clean.to(device), attacked.to(device)
    run: Callable[[Tensor], Tensor] = victim
    frames = []
    with deployed(victim, clean[:1]):
        expect_deterministic(victim, clean)
        both = clean, attacked
        for batch_size in dict.fromkeys(fitting(victim, both, size) for size in batch_sizes):
            alone = batch_size == 1
            arms = (
                victim.domain.singles(inputs) if alone else inputs.split(batch_size)
                for inputs in both
            )
            pairs = [(partial(run, a), partial(run, b)) for a, b in zip(*arms, strict=True)]
            first = np.arange(0, len(clean), batch_size)
            sizes = np.minimum(batch_size, len(clean) - first)
            for clock in clocks_for(device) if clocks is None else clocks:
                settled = warm_up(clock, pairs)
                per_image = time_abba(clock, pairs, repeats, seconds) / sizes[:, None]
                columns = {
                    "batch_size": batch_size,
                    "image": first,
                    "images": sizes,
                    "clock": clock.name,
                    "seconds_clean": per_image[:, 0],
                    "seconds_attacked": per_image[:, 1],
                    "settled": settled,
                    "environment": json.dumps(environment(device)),
                }
                frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def time_abba(clock: Clock, pairs: Pairs, repeats: int = 1, seconds: float = 0.0) -> Floats:
    """Passes of mirrored quadruples over all pairs, until both bounds are met.

    Returns:
        (pairs, 2) least seconds of each call over the passes; NaN where the clock did not move.
    """
    passes: list[list[tuple[float, float]]] = []
    start = time.monotonic()
    while len(passes) < repeats or time.monotonic() - start < seconds:
        turn = len(passes)
        passes.append(
            [
                quadruple(clock, a, b, mirrored=(row + turn) % 2 == 1)
                for row, (a, b) in enumerate(pairs)
            ]
        )
    return moved(np.min(passes, axis=0))


def moved(seconds: Floats) -> Floats:
    """NaN where a clock was too coarse to have moved."""
    return np.where(seconds > 0, seconds, np.nan)


def quadruple(clock: Clock, a: Call, b: Call, *, mirrored: bool = False) -> tuple[float, float]:
    """Least seconds of ``a`` and of ``b``, called in the order a b b a (mirrored: b a a b)."""
    outer, inner = (b, a) if mirrored else (a, b)
    first, second, third, fourth = (clock.time(call) for call in (outer, inner, inner, outer))
    outside, inside = min(first, fourth), min(second, third)
    return (inside, outside) if mirrored else (outside, inside)


def warm_up(
    clock: Clock,
    pairs: Pairs,
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


def _check(
    victim: Victim,
    clean: Batch,
    attacked: Batch,
    batch_sizes: Sequence[int],
    repeats: int,
    seconds: float,
) -> None:
    if not len(clean):
        raise UsageError(f"there are no {victim.domain.nouns} to time: the batch is empty")
    expect_paired(victim, clean, attacked)
    if not batch_sizes or min(batch_sizes) < 1 or repeats < 1:
        raise UsageError(f"batch sizes are {batch_sizes}, repeats {repeats}: all start at 1")
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"seconds = {seconds}: give the seconds to time, 0 or more")
