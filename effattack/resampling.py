"""Intervals of scores, by resampling the images they were measured on.

A resample is a row of weights, how often each image was drawn, so that any score that is made of
sums over images is computed for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effattack.measure.statistics import Interval

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights (resamples, images) -> one value per resample."""

CONFIDENCE = 0.95
RESAMPLES = 5000


def resamples(images: int) -> Floats:
    """Weights (resamples, images); the same ones at every call."""
    drawn = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return drawn.astype(float)


def interval(statistic: Statistic, weights: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The statistic of the images themselves, and its percentile interval over the resamples."""
    value = statistic(np.ones((1, weights.shape[1])))[0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(weights), [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def mean(values: Any) -> Statistic:
    """The mean of (images,) values."""
    return lambda weights: weights @ np.asarray(values, dtype=float) / weights.sum(1)


def savings_retained(macs: Any, clean: Any, ceiling: float) -> Statistic:
    """1 - (Σ attacked - Σ clean) / (n · max - Σ clean), from (images,) MACs; 1 without headroom."""

    def savings(weights: Floats) -> Floats:
        before = weights @ np.asarray(clean, dtype=float)
        gained = weights @ np.asarray(macs, dtype=float) - before
        headroom = weights.sum(1) * ceiling - before
        return 1 - np.divide(gained, headroom, out=np.zeros_like(gained), where=headroom > 0)

    return savings


def macs_ratio(macs: Any, clean: Any) -> Statistic:
    """Σ attacked / Σ clean, from (images,) MACs."""
    attacked, before = np.asarray(macs, dtype=float), np.asarray(clean, dtype=float)
    return lambda weights: (weights @ attacked) / (weights @ before)
