"""Numbers as colours: from dark violet over orange to light yellow, brighter with every step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ANCHORS = np.array([[24, 12, 62], [122, 28, 109], [222, 85, 50], [250, 165, 10], [252, 252, 160]])
"""Equally far apart; each is brighter than the one before, so that grey prints tell them apart."""


def colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(3, H, W) of values (H, W) in [0, 1]."""
    at = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(values, at, ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels).round().astype(np.uint8)
