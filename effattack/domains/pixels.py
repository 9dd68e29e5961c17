"""Images as everybody here expects them: float, (B, C, H, W), in [0, 1], on the 8-bit grid."""

from __future__ import annotations

from math import isqrt
from numbers import Integral

import torch
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.domains.arrays import Arrays
from effattack.errors import UsageError


class Pixels(Arrays):
    """Images (B, C, H, W), floats in [0, 1] on the 8-bit grid.

    Args:
        shape: (C, H, W) of one image; None where a size is free, as in ``(3, None, None)``. The
            images of one batch have one size.
        most: pixels that one image may have, where sizes are free; None: any number.

    Raises:
        UsageError: for a shape that is none.
    """

    kind, noun, nouns = "pixels", "image", "images"
    low, high, step = 0.0, 1.0, 1 / LEVELS
    _stored = torch.uint8
    _coarse = " for 8 bits"
    _resize = "resize or convert them first"
    _others = {
        3: "series (B, channels, length) are no images and need a victim of series; one image is a "
        "batch of one, images[None]"
    }
    _rescale = (
        "undo the normalisation (it belongs inside the victim) or divide by 255"  # of 8-bit images
    )

    def __init__(self, shape: tuple[int | None, ...], most: int | None = None) -> None:
        sizes = shape if isinstance(shape, tuple | list) and len(shape) <= 3 else ()
        if not sizes or not all(n is None or (isinstance(n, Integral) and n > 0) for n in sizes):
            raise UsageError(
                f"the shape of an image is {shape!r}: give (C, H, W), None where a size is free"
            )
        self.shape, self.most = tuple(shape), most

    def check(self, inputs: Tensor) -> None:
        super().check(inputs)
        self.check_declared(inputs)

    def check_declared(self, inputs: Tensor) -> None:
        """Refuse images of too many pixels, before anything is done with them.

        Raises:
            UsageError: naming their size, and the most that is taken.
        """
        height, width = inputs.shape[-2:]
        if self.most is not None and height * width > self.most:
            raise UsageError(
                f"images declare {height} x {width} pixels, and at most {self.most:,} are taken: "
                "refuse such files at the door, or raise most_pixels"
            )

    def snap(self, inputs: Tensor) -> Tensor:
        return to_grid(inputs)

    def example(self, count: int) -> Tensor:
        """Grey images, off the grid by half a level; a free size is 32, or the most taken."""
        free = 32 if self.most is None else min(32, isqrt(self.most))
        return torch.full((count, *(free if size is None else size for size in self.shape)), 0.5)

    def levels(self, inputs: Tensor) -> Tensor:
        return (inputs * LEVELS).round().to(torch.uint8)

    def values(self, levels: Tensor, like: Tensor) -> Tensor:
        return levels.to(like.dtype) / LEVELS

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Of images of another size than the clean ones: to those, enlarged; all pixels differ."""
        if inputs.shape == clean.shape:
            return super().distances(inputs, clean)
        height, width = inputs.shape[-2:]
        found = super().distances(inputs, enlarged(clean, height, width))
        return {**found, "pixels": torch.full((len(inputs),), height * width).double()}

    def _as_floats(self, dtype: torch.dtype) -> str:
        if dtype == torch.uint8:
            return "divide 8-bit images by 255"
        return (
            "pixels are floats in [0, 1], 8-bit ones divided by 255; token ids are no images and "
            "cannot be scored"
        )


def enlarged(images: Tensor, height: int, width: int) -> Tensor:
    """Images (B, C, H, W) with their own pixels repeated, or left out, to another size."""
    down = torch.arange(height, device=images.device) * images.shape[-2] // height
    across = torch.arange(width, device=images.device) * images.shape[-1] // width
    return images[..., down[:, None], across]


def to_grid(images: Tensor) -> Tensor:
    """The nearest images on the 8-bit grid."""
    return (images * LEVELS).round() / LEVELS
