"""Intervals for what is compared: paired ratios and proportions.

Shares of work have theirs in ``results.resampling``. Images are the units of all of them:
repeats and seeds of one image are pooled before, because they are no new evidence about images. A
ratio is judged by the bounds of its interval, never by the point estimate.
"""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom
from scipy.stats import t as student

from effattack.errors import UsageError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Of every interval that is shown."""
FEWEST = 6
"""Inputs that carry an interval: as many as the exact one of a median takes at 95 %."""


class Interval(NamedTuple):
    """A point estimate and its confidence interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside the interval; never true of a NaN interval."""
        return self.low > value or self.high < value


NOTHING = Interval(nan, nan, nan)
"""The interval of no data at all."""


def median_ratio(
    attacked: ArrayLike, clean: ArrayLike, *, confidence: float = CONFIDENCE
) -> Interval:
    """exp(median of log(attacked / clean)) over images, with its exact interval.

    The bounds are the k-th smallest and the k-th largest ratio, with the largest k for which
    P(Binomial(n, 1/2) < k) is at most half of what the confidence leaves: whatever the
    distribution, the true median lies outside at most that often (Thompson, Annals of Mathematical
    Statistics 7, 1936). A percentile bootstrap of the median is what approximates it, and it is too
    narrow: on 16 images with no effect it excluded 1 in 6.6 % of 3000 simulations, this one in
    2.4 %. Fewer pairs than the confidence takes (6 for 95 %) leave the bounds NaN.

    Args:
        attacked: (n,) positive, in any unit: seconds, joules. Pairs with a NaN are dropped.
        clean: (n,) of the same images, in the same order and unit.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        UsageError: for arms that do not pair up, or values that are not positive and finite.
    """
    tail = tail_of(confidence)
    logs = np.sort(_log_ratios(attacked, clean))
    n = logs.size
    if not n:
        return NOTHING
    value = float(np.exp(np.median(logs)))
    k = int(np.searchsorted(binom.cdf(np.arange(n), n, 0.5), tail, side="right"))
    if not k:
        return Interval(value, nan, nan)
    low, high = np.exp(logs[[k - 1, n - k]])
    return Interval(value, float(low), float(high))


def paired_mean(first: ArrayLike, second: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """The mean over images of first − second, with Student's interval of the paired differences.

    Fewer than 6 pairs leave the bounds NaN, as they do those of the other intervals.

    Args:
        first, second: (n,) of the same images, in the same order and unit.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        UsageError: for arrays that do not pair up.
    """
    tail = tail_of(confidence)
    above, below = paired(first, second)
    change = above - below
    if change.size < FEWEST:
        return Interval(float(change.mean()) if change.size else nan, nan, nan)
    value = float(change.mean())
    spread = float(student.ppf(1 - tail, change.size - 1) * change.std(ddof=1) / change.size**0.5)
    return Interval(value, value - spread, value + spread)


def proportion(successes: float, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """A share with its exact binomial interval (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        successes: how many of the ``n`` samples. A sample that succeeded under some of its seeds
            adds the share of them: no sum of such shares spreads wider than the binomial one of the
            same mean (Hoeffding, Annals of Mathematical Statistics 27, 1956).
        n: samples; with 0 of them there is no estimate, and all is NaN.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        UsageError: unless 0 <= successes <= n.
    """
    tail = tail_of(confidence)
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes of {n} samples: successes must lie in [0, {n}]")
    if n == 0:
        return NOTHING
    low = beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval(successes / n, float(low), float(high))


def _log_ratios(attacked: ArrayLike, clean: ArrayLike) -> Floats:
    above, below = paired(attacked, clean)
    measured = ~(np.isnan(above) | np.isnan(below))
    above, below = above[measured], below[measured]
    for arm, values in (("attacked", above), ("clean", below)):
        if not np.all((values > 0) & np.isfinite(values)):
            raise UsageError(
                f"{arm} has a value that is not positive and finite: put NaN where nothing was "
                "measured"
            )
    return np.log(above) - np.log(below)


def paired(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """Both as (n,) numbers.

    Raises:
        UsageError: if they are not.
    """
    above, below = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if above.ndim != 1 or above.shape != below.shape:
        raise UsageError(
            f"shapes {above.shape} and {below.shape}: give one value per image, paired, as two "
            "arrays (n,)"
        )
    return above, below


def tail_of(confidence: float) -> float:
    """What a confidence leaves on either side.

    Raises:
        UsageError: unless it lies between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}: it must lie between 0 and 1")
    return (1 - confidence) / 2
