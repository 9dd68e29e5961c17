"""Intervals for what is compared: paired ratios, shares of work, and proportions.

Images are the units of all of them: repeats and seeds of one image are pooled before, because they
are no new evidence about images. A ratio is judged by the bounds of its interval, never by the
point estimate.
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

RESAMPLES = 1000
"""Of the bootstrap: the bounds move by about a tenth of the interval from seed to seed."""
FEWEST = 6
"""Pairs that carry an interval at 95 %."""
AT_ONCE = 2**22
"""Resampled values held in memory at a time."""


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


def median_ratio(attacked: ArrayLike, clean: ArrayLike, *, confidence: float = 0.95) -> Interval:
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
    tail = _tail(confidence)
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


def ratio_of_sums(
    gained: ArrayLike, possible: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Σ gained / Σ possible over images, with a percentile bootstrap interval over images.

    Where every image says the same, the interval has no width: the bootstrap knows no image that
    it has not seen. The bounds are NaN for so few images that [min, max] would not carry the
    confidence (below 6 for 95 %), and where a resample may have nothing to gain.

    Args:
        gained: (n,) one value per image, of any sign.
        possible: (n,) of the same images, at least 0.
        confidence: of the two-sided interval, in (0, 1).
        seed: of the resampling; equal input gives equal intervals.

    Raises:
        UsageError: for arrays that do not pair up.
    """
    tail = _tail(confidence)
    above, below = _paired(gained, possible)
    if not above.size or not below.sum():
        return NOTHING
    value = float(above.sum() / below.sum())
    if 2.0 ** (1 - above.size) > 2 * tail:
        return Interval(value, nan, nan)
    rng = np.random.default_rng(seed)
    drawn: list[Floats] = []
    while (left := RESAMPLES - sum(map(len, drawn))) > 0:
        rows = min(left, max(1, AT_ONCE // above.size))
        images = rng.integers(above.size, size=(rows, above.size))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append(above[images].sum(1) / below[images].sum(1))
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Interval(value, float(low), float(high)) if np.isfinite(low + high) else NOTHING


def paired_mean(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean over images of first − second, with Student's interval of the paired differences.

    Fewer than 6 pairs leave the bounds NaN, as they do those of the other intervals.

    Args:
        first, second: (n,) of the same images, in the same order and unit.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        UsageError: for arrays that do not pair up.
    """
    tail = _tail(confidence)
    above, below = _paired(first, second)
    change = above - below
    if change.size < FEWEST:
        return Interval(float(change.mean()) if change.size else nan, nan, nan)
    value = float(change.mean())
    spread = float(student.ppf(1 - tail, change.size - 1) * change.std(ddof=1) / change.size**0.5)
    return Interval(value, value - spread, value + spread)


def proportion(successes: float, n: int, *, confidence: float = 0.95) -> Interval:
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
    tail = _tail(confidence)
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes of {n} samples: successes must lie in [0, {n}]")
    if n == 0:
        return NOTHING
    low = beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval(successes / n, float(low), float(high))


def _log_ratios(attacked: ArrayLike, clean: ArrayLike) -> Floats:
    above, below = _paired(attacked, clean)
    measured = ~(np.isnan(above) | np.isnan(below))
    above, below = above[measured], below[measured]
    for arm, values in (("attacked", above), ("clean", below)):
        if not np.all((values > 0) & np.isfinite(values)):
            raise UsageError(
                f"{arm} has a value that is not positive and finite: put NaN where nothing was "
                "measured"
            )
    return np.log(above) - np.log(below)


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    above, below = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if above.ndim != 1 or above.shape != below.shape:
        raise UsageError(
            f"shapes {above.shape} and {below.shape}: give one value per image, paired, as two "
            "arrays (n,)"
        )
    return above, below


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}: it must lie between 0 and 1")
    return (1 - confidence) / 2
