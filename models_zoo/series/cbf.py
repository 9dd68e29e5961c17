"""Cylinder, bell and funnel: series made by a published formula, so that no data need be stored.

Saito, "Local feature extraction and its applications using a library of bases", PhD thesis, Yale
1994: for t = 1 ... 128, with η and ε(t) ~ N(0, 1), a ~ U{16 ... 32} and b - a ~ U{32 ... 96},

    cylinder  c(t) = (6 + η) χ[a, b](t) + ε(t)
    bell      b(t) = (6 + η) χ[a, b](t) (t - a) / (b - a) + ε(t)
    funnel    f(t) = (6 + η) χ[a, b](t) (b - t) / (b - a) + ε(t)

The values stay as they are: to scale a series by its own mean and deviation, one must have read it
to its end.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from effattack.domains.series import Series

CLASSES = ("cylinder", "bell", "funnel")
LENGTH = 128
DOMAIN = Series(channels=1, length=LENGTH, low=-16, high=16, step=2**-7, deviation=2.705)
"""What a sensor of 12 bits resolves; the deviation is that of all training values."""
_SPLITS = {"train": (0, 6000), "heldout": (1, 600), "test": (2, 300)}
"""Seed and number of series of each split."""


def cylinder_bell_funnel(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Series (count, 1, 128) on the sensor's grid, and their classes (count,), equally many each.

    The same on every machine: drawn by numpy's PCG64, computed in float64, then rounded.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    labels = draw.permutation(np.arange(count) % len(CLASSES))
    onset = draw.integers(16, 33, (count, 1))
    width = draw.integers(32, 97, (count, 1))
    height = 6 + draw.standard_normal((count, 1))
    noise = draw.standard_normal((count, LENGTH))
    elapsed = np.arange(1, LENGTH + 1) - onset
    shapes = np.stack([np.ones_like(elapsed, dtype=float), elapsed / width, 1 - elapsed / width])
    shape = shapes[labels, np.arange(count)]
    exact = height * shape * ((elapsed >= 0) & (elapsed <= width)) + noise
    series = DOMAIN.snap(torch.from_numpy(exact)[:, None])
    return series.float(), torch.from_numpy(labels)


@cache
def _split(split: str) -> tuple[Tensor, Tensor]:
    seed, count = _SPLITS[split]
    return cylinder_bell_funnel(count, seed)


def cbf(split: str) -> tuple[Tensor, Tensor]:
    """Series (B, 1, 128) and labels (B,) of one split: train, heldout or test."""
    series, labels = _split(split)
    return series.clone(), labels.clone()


def scored_series() -> tuple[Tensor, Tensor]:
    """The 300 test series that embedded victims are scored on."""
    return cbf("test")
