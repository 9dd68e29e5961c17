"""What attacked images do to the batch they travel in.

Savings per image need not be savings per batch: a victim may pad to its longest member, run a
sub-batch for what it escalates, or share decisions between batch mates (the outlier columns of
LLM.int8()). One batch is therefore run with 0, 1, ... of its images attacked, timed against itself
with none attacked, and its executed MACs are counted beside those of its images run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.counting.macs import count_macs
from effattack.errors import UsageError
from effattack.measure.clocks import Clock, deployed
from effattack.measure.guards import expect_deterministic, expect_own_device, fitting
from effattack.measure.latency import time_abba, warm_up
from effattack.measure.statistics import median_ratio
from effattack.victim import Victim


def batch_curve(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    clock: Clock,
    *,
    batch_size: int = 8,
    counts: Sequence[int] | None = None,
    repeats: int = 5,
    seconds: float = 0.0,
) -> pd.DataFrame:
    """Latency and executed MACs of batches against the number of attacked images in them.

    Args:
        victim: whose deployed path is measured, in eval mode (restored afterwards).
        clean: (N, *input_shape) in [0, 1]: N // batch_size batches, which are the units; 6 of them
            are the fewest that carry an interval.
        attacked: (N, *input_shape): the same images, attacked.
        clock: reads the time.
        batch_size: images per call; halved, with a warning, until a batch fits in memory.
        counts: of attacked images per batch, by default 0, 1, ..., batch_size. They take the first
            places; no victim knows places.
        repeats: the fewest quadruples per batch and count.
        seconds: of timing per count, at least.

    Returns:
        One row per count: ``victim``, ``batch_size``, ``attacked``, ``batches``, ``seconds`` (of a
        batch, median), ``latency_ratio``, ``latency_low``, ``latency_high`` (against the same
        batches with none attacked), ``macs`` (executed by a batch, mean), ``macs_ratio`` (likewise
        against none attacked), ``macs_alone`` (of the same images in batches of 1, mean),
        ``contamination`` (``macs / macs_alone``: 1 where no image pays for its batch mates),
        ``clock``.

    Raises:
        UsageError: for arms that do not pair up, less than one batch, a count that does not fit,
            or an xdist worker.
        MeasurementError: for a victim whose forward is not deterministic.
    """
    if clean.shape != attacked.shape or not 1 <= batch_size <= len(clean):
        raise UsageError(
            f"clean {tuple(clean.shape)}, attacked {tuple(attacked.shape)}, batches of "
            f"{batch_size}: give the same images in the same order, one batch at least"
        )
    expect_own_device()
    clean, attacked = clean.to(victim.device), attacked.to(victim.device)
    run: Callable[[Tensor], Tensor] = victim
    rows = []
    with deployed(victim, clean[:1]):
        expect_deterministic(victim, clean)
        size = fitting(victim, (clean, attacked), batch_size)
        counts = range(size + 1) if counts is None else counts
        if not counts or min(counts) < 0 or max(counts) > size:
            raise UsageError(f"counts {list(counts)}: give numbers from 0 to the batch size {size}")
        batches = range(0, len(clean) // size * size, size)
        base = _mixed(clean, attacked, 0, size, batches)
        base_macs = np.array([count_macs(victim, batch) for batch in base])
        alone = [_alone(victim, images, batches, size) for images in (clean, attacked)]
        for count in counts:
            mixed = _mixed(clean, attacked, count, size, batches)
            pairs = [(partial(run, a), partial(run, b)) for a, b in zip(base, mixed, strict=True)]
            warm_up(clock, pairs)
            before, after = time_abba(clock, pairs, repeats, seconds).T
            ratio = median_ratio(after, before)
            macs = np.array([count_macs(victim, batch) for batch in mixed])
            single = alone[1][:, :count].sum(1) + alone[0][:, count:].sum(1)
            row = {
                "victim": victim.name,
                "batch_size": size,
                "attacked": count,
                "batches": len(mixed),
                "seconds": np.median(after),
                "latency_ratio": ratio.value,
                "latency_low": ratio.low,
                "latency_high": ratio.high,
                "macs": macs.mean(),
                "macs_ratio": macs.sum() / base_macs.sum(),
                "macs_alone": single.mean(),
                "contamination": macs.sum() / single.sum(),
                "clock": clock.name,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def time_batches(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    clock: Clock,
    *,
    max_batch: int,
    readings: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Time batches of every make-up that a server can meet.

    Args:
        victim: whose deployed path is timed, in eval mode (restored afterwards).
        clean: (N, *input_shape) in [0, 1]; batches are drawn from them.
        attacked: (N, *input_shape): the same images, attacked.
        clock: reads the time.
        max_batch: images per batch, from 1 on.
        readings: per make-up; the make-ups are interleaved over the time that it takes.
        seed: of the draws.

    Returns:
        ``images``, ``attacked``, ``seconds``: one row per reading.

    Raises:
        UsageError: for settings out of range, or an xdist worker.
        MeasurementError: for a victim whose forward is not deterministic.
    """
    if not 1 <= max_batch <= min(len(clean), len(attacked)) or readings < 1:
        raise UsageError(f"max_batch {max_batch} of {len(clean)} clean and {len(attacked)} attacked"
                         f" images, {readings} readings: give more images, or less")  # fmt: skip
    expect_own_device()
    clean, attacked = clean.to(victim.device), attacked.to(victim.device)
    rng = np.random.default_rng(seed)
    run: Callable[[Tensor], Tensor] = victim
    rows = []
    with deployed(victim, clean[:1]):
        expect_deterministic(victim, clean)
        for reading in range(readings + 1):
            for images in range(1, max_batch + 1):
                for malicious in range(images + 1):
                    drawn = torch.from_numpy(rng.permutation(len(clean))[:images])
                    batch = torch.cat([attacked[drawn[:malicious]], clean[drawn[malicious:]]])
                    rows.append((reading, images, malicious, clock.time(partial(run, batch))))
    frame = pd.DataFrame(rows, columns=["reading", "images", "attacked", "seconds"])
    return frame[frame.reading > 0].drop(columns="reading")  # the first round warms up


def drawn_from(measured: pd.DataFrame, seed: int = 0) -> Callable[[int, int], float]:
    """A service that takes as long as a measured batch of the same make-up, drawn at random."""
    rng = np.random.default_rng([seed, 1])  # no stream in common with the arrivals of this seed
    known = {key: rows.seconds.to_numpy() for key, rows in measured.groupby(["images", "attacked"])}
    return lambda images, attacked: float(rng.choice(known[images, attacked]))


def _mixed(clean: Tensor, attacked: Tensor, count: int, size: int, batches: range) -> list[Tensor]:
    """Batches whose first ``count`` images are attacked."""
    return [
        torch.cat([attacked[first : first + count], clean[first + count : first + size]])
        for first in batches
    ]


def _alone(victim: Victim, images: Tensor, batches: range, size: int) -> np.ndarray:
    """(batches, size) MACs of each image run alone."""
    used = images[: len(batches) * size]
    return np.array([count_macs(victim, image) for image in used.split(1)]).reshape(-1, size)
