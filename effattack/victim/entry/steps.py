"""What stands between a file and a model: resizing, cropping, compression.

Each step has two sides: what Pillow really does, and a differentiable stand-in for it. The value of
a step is the first, its gradient that of the second (straight-through; Athalye, Carlini and Wagner,
"Obfuscated Gradients Give a False Sense of Security", ICML 2018, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from effattack.errors import UsageError, unknown_name
from effattack.victim.entry.codecs import each, expect_codec, expect_quality, round_trip
from effattack.victim.entry.dct import soft_jpeg

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Step:
    """One step of what is done to a file.

    Attributes:
        text: as it is written, ``"resize(256)"``.
        real: what is done to an image; drawn from, where a step draws.
        soft: the same of (1, C, H, W) in [0, 1], differentiable; the value may differ, not the
            size. It is given equal draws.
        frees: whether files of any size may stand before it.
        draws: whether it draws.
    """

    text: str
    real: Callable[[Image.Image, Random], Image.Image]
    soft: Callable[[Tensor, Random], Tensor]
    frees: bool = False
    draws: bool = False

    def __call__(self, image: Tensor, seed: str) -> Tensor:
        """(1, C, H, W): the value of the real side, with the gradient of the other."""
        value = each(image, lambda one: self.real(one, Random(seed)))
        if not (torch.is_grad_enabled() and image.requires_grad):
            return value
        return Valued.apply(self.soft(image.float(), Random(seed)).to(image.dtype), value)

    def __str__(self) -> str:
        return self.text


class Valued(torch.autograd.Function):
    """Another value, the same gradient."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def resize(side: int, interpolation: str = "bicubic") -> Step:
    """The shorter side becomes so many pixels, antialiased, by Pillow's filter.

    Raises:
        UsageError: for a side below 1, or an unknown filter.
    """
    _expect_side("resize", side)
    if interpolation not in FILTERS:
        raise unknown_name("filter of resize", interpolation, FILTERS)

    def real(image: Image.Image, draw: Random) -> Image.Image:
        width, height = image.size
        size = _scaled(height, width, side)
        return image.resize((size[1], size[0]), FILTERS[interpolation])

    def soft(image: Tensor, draw: Random) -> Tensor:
        height, width = image.shape[-2:]
        size = _scaled(height, width, side)
        return interpolate(image, size=size, mode=interpolation, antialias=True)

    named = "" if interpolation == "bicubic" else f", interpolation={interpolation!r}"
    return Step(f"resize({side}{named})", real, soft, frees=True)


def center_crop(side: int) -> Step:
    """The middle square of so many pixels a side.

    Raises:
        UsageError: for a side below 1; of a smaller image, once it is there.
    """
    _expect_side("center_crop", side)

    def middle(height: int, width: int, draw: Random) -> tuple[int, int]:
        return round((height - side) / 2), round((width - side) / 2)

    return _cropping(f"center_crop({side})", side, middle)


def random_crop(side: int) -> Step:
    """A square of so many pixels a side, drawn for each input.

    Raises:
        UsageError: for a side below 1; of a smaller image, once it is there.
    """
    _expect_side("random_crop", side)

    def anywhere(height: int, width: int, draw: Random) -> tuple[int, int]:
        return draw.randint(0, height - side), draw.randint(0, width - side)

    return _cropping(f"random_crop({side})", side, anywhere, draws=True)


def random_flip() -> Step:
    """The image or its mirror image, drawn for each input."""

    def real(image: Image.Image, draw: Random) -> Image.Image:
        flipped = draw.random() < 0.5
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image

    def soft(image: Tensor, draw: Random) -> Tensor:
        return image.flip(-1) if draw.random() < 0.5 else image

    return Step("random_flip()", real, soft, draws=True)


def jpeg(quality: int) -> Step:
    """Written as JPEG and read again; gradients by :mod:`.dct`.

    Raises:
        UsageError: for a quality that is none, or where Pillow has no JPEG.
    """
    return _compressed("jpeg", "JPEG", quality, lambda image, draw: soft_jpeg(image, quality))


def webp(quality: int) -> Step:
    """Written as WebP and read again; gradients pass as if it changed nothing.

    Raises:
        UsageError: for a quality that is none, or where Pillow has no WebP.
    """
    return _compressed("webp", "WEBP", quality, lambda image, draw: image)


def _compressed(
    name: str, form: str, quality: int, soft: Callable[[Tensor, Random], Tensor]
) -> Step:
    expect_quality(form, quality)
    expect_codec(form)
    return Step(f"{name}({quality})", lambda image, draw: round_trip(image, form, quality), soft)


def _cropping(
    text: str,
    side: int,
    corner: Callable[[int, int, Random], tuple[int, int]],
    draws: bool = False,
) -> Step:
    def at(height: int, width: int, draw: Random) -> tuple[int, int]:
        if side > min(height, width):
            raise UsageError(
                f"{text} of an image of {height} x {width} pixels: resize it first, or crop less"
            )
        return corner(height, width, draw)

    def real(image: Image.Image, draw: Random) -> Image.Image:
        top, left = at(image.height, image.width, draw)
        return image.crop((left, top, left + side, top + side))

    def soft(image: Tensor, draw: Random) -> Tensor:
        height, width = image.shape[-2:]
        top, left = at(height, width, draw)
        return image[..., top : top + side, left : left + side]

    return Step(text, real, soft, draws=draws)


def _scaled(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width once the shorter one is ``side``."""
    shorter = min(height, width)
    return side * height // shorter, side * width // shorter


def _expect_side(name: str, side: int) -> None:
    if not isinstance(side, int) or side < 1:
        raise UsageError(f"{name}({side!r}): give a whole number of pixels, 1 or more")
