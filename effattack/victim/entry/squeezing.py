"""Steps that take detail away: fewer levels of grey, and the median of neighbours.

Xu, Evans and Qi, "Feature Squeezing", NDSS 2018 (arXiv 1704.01155), sections III.A and III.B: a
small change is hidden by what an image loses. Both keep to 8 bits per value.
"""

from __future__ import annotations

from random import Random

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import pad

from effattack.budgets import LEVELS
from effattack.errors import UsageError
from effattack.victim.entry.steps import Step


def bits(depth: int) -> Step:
    """Each value rounded to 2^depth levels; gradients pass as if it changed nothing.

    Raises:
        UsageError: for a depth outside 1 to 8.
    """
    if not isinstance(depth, int) or not 1 <= depth <= 8:
        raise UsageError(f"bits({depth!r}): give a whole number of bits per value, from 1 to 8")
    most = 2**depth - 1
    table = [round(round(level / LEVELS * most) / most * LEVELS) for level in range(LEVELS + 1)]

    def real(image: Image.Image, draw: Random) -> Image.Image:
        return image.point(table * len(image.getbands()))

    return Step(f"bits({depth})", real, lambda image, draw: image)


def median(side: int) -> Step:
    """Each value becomes the median of a square around it, edges repeated, channel by channel.

    Args:
        side: of the square, odd, in pixels.

    Raises:
        UsageError: for a side that is even, or below 3.
    """
    if not isinstance(side, int) or side < 3 or side % 2 == 0:
        raise UsageError(f"median({side!r}): give an odd number of pixels, 3 or more")

    def real(image: Image.Image, draw: Random) -> Image.Image:
        return image.filter(ImageFilter.MedianFilter(side))

    def soft(image: Tensor, draw: Random) -> Tensor:
        around = pad(image, (side // 2,) * 4, mode="replicate").unfold(2, side, 1)
        windows: Tensor = around.unfold(3, side, 1).flatten(-2)
        return torch.median(windows, dim=-1).values

    return Step(f"median({side})", real, soft)
