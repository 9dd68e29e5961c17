"""Intervals over inputs: the Bayesian bootstrap with one more input, the worst there may be.

The inputs get random shares of the whole (Dirichlet, all alike), and so does one that nobody has
seen, which pulls the bound away as far as its limits admit. For a mean between known bounds this is
Gaffke's interval (Gaffke 2005; Learned-Miller and Thomas, arXiv 1905.06208); where every input is
0 or 1 it is that of Clopper and Pearson. It is as good for a ratio of means, which lies below θ
exactly where the mean of numerator − θ · denominator is negative. That it covers for every
distribution is a conjecture; how often it does is measured by ``benchmarks/coverage.py``. The
percentile bootstrap knows no input that it has not seen: where two in a hundred move, it covers in
one case of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import floor, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from effattack.measure.statistics import (
    CONFIDENCE,
    FEWEST,
    NOTHING,
    Floats,
    Interval,
    paired,
    tail_of,
)

DRAWS, FEWEST_DRAWS = 10_000, 2_000
"""Of few inputs, and of thousands."""
AT_ONCE = 2**21
"""Random shares that are held in memory at a time."""

Statistic = Callable[[Floats], Floats]
"""Means over inputs, (..., k) of the k numbers of an input -> (...) values."""


class Sample(NamedTuple):
    """Inputs, and how far one more could pull the means."""

    inputs: Floats
    """(n, k): k numbers of each input."""
    lowest: Floats
    """(k,): of the unseen input that lowers the value most."""
    highest: Floats
    """(k,): of the one that raises it most."""


def mean(means: Floats) -> Floats:
    """Of (..., 1): the mean itself."""
    return means[..., 0]


def macs_ratio(means: Floats) -> Floats:
    """Of (..., 2), attacked and clean MACs: Σ attacked / Σ clean."""
    return means[..., 0] / means[..., 1]


def attack_success(means: Floats) -> Floats:
    """Of (..., 3), attacked, clean and most MACs: (Σ attacked - Σ clean) / (Σ most - Σ clean).

    May be negative. NaN where nothing was saved on the clean inputs, Σ most = Σ clean, or the most
    is unknown: what was not saved can be neither taken nor retained.
    """
    attacked, clean, most = np.moveaxis(np.asarray(means, dtype=float), -1, 0)
    saved = most - clean
    return np.divide(attacked - clean, saved, out=np.full_like(saved, nan), where=saved != 0)


def savings_retained(means: Floats) -> Floats:
    """Of (..., 3), as for :func:`attack_success`: the rest of it."""
    return 1 - attack_success(means)


def savings(attacked: ArrayLike, clean: ArrayLike, ceiling: ArrayLike) -> Interval:
    """Savings retained with their 95 % interval over inputs; no value where nothing was saved.

    Work lies between 0 and the ceiling. So the unseen input of the low bound costs nothing when
    clean and its whole ceiling when attacked; that of the high bound is as dear as the dearest
    clean one seen, and costs nothing when attacked: controls may do less work than clean.

    Args:
        attacked: (n,) MACs, one value per input: seeds of an input are averaged before.
        clean: (n,) of the same inputs.
        ceiling: (n,) the most that each input can be made to cost; NaN where unknown.

    Raises:
        UsageError: for arrays that do not pair up.
    """
    attacked, clean = paired(attacked, clean)
    _, ceiling = paired(clean, ceiling)
    if not ceiling.size or np.isnan(ceiling).any():
        return NOTHING
    most = ceiling.max()
    inputs = np.stack([attacked, clean, ceiling], axis=1)
    lowest, highest = np.array([[most, 0.0, most], [0.0, clean.max(), most]])
    return interval(savings_retained, Sample(inputs, lowest, highest))


def compared(statistic: Statistic, now: Floats, then: Floats) -> Sample:
    """Pairs of an input now and then, (n, k) each; the unseen one is a seen pair the wrong way
    round.

    Without a change a pair is as likely to be one way as the other, so that for inputs that changed
    or did not, all alike, this is the sign test: below ``2 ** -n`` there is no alarm.

    Args:
        statistic: of the 2k numbers of a pair, those of now first.
        now: (n, k) numbers of each input.
        then: (n, k) of the same inputs.
    """
    pairs = np.concatenate([now, then], axis=1)
    unseen = np.concatenate([pairs, np.concatenate([then, now], axis=1)])
    moved = statistic((pairs.sum(0) + unseen) / (1 + len(pairs)))
    return Sample(pairs, unseen[moved.argmin()], unseen[moved.argmax()])


def interval(statistic: Statistic, sample: Sample, confidence: float = CONFIDENCE) -> Interval:
    """The value of the inputs themselves, and its interval; NaN bounds below 6 inputs.

    Args:
        statistic: of the means of the k numbers of an input.
        sample: n inputs, and the two unseen ones.
        confidence: of the two-sided interval, in (0, 1).
    """
    inputs = sample.inputs
    value = float(statistic(inputs.mean(0)))
    tail = tail_of(confidence)
    if len(inputs) < FEWEST or np.isnan(value):
        return Interval(value, nan, nan)
    lower, upper = [], []
    for seen, unseen in _shares(len(inputs)):
        means = seen @ inputs
        lower.append(statistic(means + unseen[:, None] * sample.lowest))
        upper.append(statistic(means + unseen[:, None] * sample.highest))
    below, above = np.sort(np.concatenate(lower)), np.sort(np.concatenate(upper))
    rank = floor(tail * len(below))
    low, high = float(below[rank]), float(above[-1 - rank])
    return Interval(value, min(low, value), max(high, value))


def _shares(inputs: int) -> Iterator[tuple[Floats, Floats]]:
    """In pieces: shares of the inputs (rows, inputs), and of the unseen one (rows,)."""
    draws = min(DRAWS, max(FEWEST_DRAWS, AT_ONCE // inputs))
    rows = min(draws, max(1, AT_ONCE // inputs))
    for first in range(0, draws, rows):
        yield _piece(inputs, draws, first, min(rows, draws - first))


@lru_cache(maxsize=4)
def _piece(inputs: int, draws: int, first: int, rows: int) -> tuple[Floats, Floats]:
    """The same ones at every call; the shares of the unseen input are spread evenly."""
    seen = np.random.default_rng(first).standard_exponential((rows, inputs))
    ranks = np.random.default_rng(draws).permutation(draws)[first : first + rows] + 0.5
    unseen = 1 - (ranks / draws) ** (1 / inputs)
    return seen * ((1 - unseen) / seen.sum(1))[:, None], unseen
