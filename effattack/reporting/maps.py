"""Kept-token maps: the image, each patch faded by how early its token was dropped."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from effattack.results.decisions import from_text

FADE = np.array([74, 120, 168], dtype=float)
"""Colour of a dropped patch: one that neither black nor white images have."""


class TokenMap(NamedTuple):
    """An image as the victim saw it, and what it kept, in words."""

    pixels: NDArray[np.uint8]
    """(3, H, W)."""
    words: str


def token_map(pixels: NDArray[np.uint8], decisions: str | None) -> TokenMap | None:
    """The map of one image; None where its gates decide on no grid of patches.

    Args:
        pixels: (C, H, W) levels.
        decisions: as stored, see :mod:`effattack.results.decisions`.
    """
    gates = {
        name: mask
        for name, mask in from_text(decisions or "{}").items()
        if name.endswith(".tokens") and isqrt(len(mask)) ** 2 == len(mask)
    }
    if not gates:
        return None
    masks = list(gates.values())
    side = isqrt(len(masks[0]))
    share = np.mean([mask for mask in masks if len(mask) == side**2], axis=0).reshape(side, side)
    image = np.broadcast_to(pixels, (3, *pixels.shape[1:])).astype(float)
    rows, columns = (np.arange(size) * side // size for size in pixels.shape[1:])
    weight = 0.1 + 0.9 * share[np.ix_(rows, columns)]
    faded = image * weight + FADE[:, None, None] * (1 - weight)
    kept = ", ".join(f"{name} {mask.sum()} of {len(mask)}" for name, mask in gates.items())
    return TokenMap(faded.round().astype(np.uint8), f"tokens kept: {kept}")
