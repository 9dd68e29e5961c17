"""Images through Pillow: what a deployed decoder really does with the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from effattack.budgets import LEVELS
from effattack.errors import UsageError

FORMATS = {"JPEG": "jpg", "WEBP": "webp"}
"""Lossy formats -> what Pillow calls the library of each."""


def expect_codec(form: str) -> None:
    """Refuse a format that the Pillow at hand was built without.

    Raises:
        UsageError: with the remedy.
    """
    if not features.check(FORMATS[form]):
        raise UsageError(
            f"this Pillow was built without {form}: pip install --force-reinstall pillow gets a "
            "wheel that has it, or leave that step out"
        )


def expect_quality(form: str, quality: int) -> None:
    """Refuse what is no quality of a lossy format.

    Raises:
        UsageError: with the remedy.
    """
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"{form} of quality {quality!r}: give a whole number from 1 to 100")


def round_trip(image: Image.Image, form: str, quality: int) -> Image.Image:
    """An image written to a file of a lossy format, and read again."""
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return Image.open(file).convert(image.mode)


def each(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Images (B, C, H, W) in [0, 1], of 1 or 3 channels, one by one through what takes 8 bits.

    They are rounded to the 8-bit grid, as every file is. Returned as they came: on their device, in
    their precision.
    """
    levels = (images.detach() * LEVELS).round().to(torch.int16).cpu().permute(0, 2, 3, 1).numpy()
    found = [_levels(change(_image(one.astype(np.uint8)))) for one in levels]
    return torch.stack(found).to(images.device).to(images.dtype) / LEVELS


def _image(levels: np.ndarray) -> Image.Image:
    """Of (H, W, C) bytes."""
    return Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels)


def _levels(image: Image.Image) -> Tensor:
    """(C, H, W), whole numbers of 16 bits."""
    found = np.asarray(image).astype(np.int16)
    return torch.from_numpy(found.reshape(*found.shape[:2], -1)).permute(2, 0, 1)
