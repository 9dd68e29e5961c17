"""Pictures as tensors in [0, 1]: read as they are, or refused with the reason; never guessed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from effattack.errors import UsageError
from effattack.streams import on_one_line

_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
"""Pillow's modes of at most 8 bits a channel that convert to grey and to RGB."""


class Unreadable(UsageError):
    """A file that cannot be read as an image: its name, and why."""

    def __str__(self) -> str:
        name, why = self.args
        return f"cannot read {name} as an image: {why}; remove or repair it"


def read_image(file: Path, shape: tuple[int | None, ...]) -> Tensor:
    """One image, float in [0, 1].

    Args:
        file: an image of at most 8 bits a channel, or of floats in [0, 1].
        shape: (C, H, W) that it must have, None where a size is free; one channel reads it as grey.

    Raises:
        Unreadable: for a file that is no such image.
        UsageError: for an image of another shape.
    """
    try:
        if not file.is_file():  # opening a pipe would wait for a writer
            raise ValueError("a broken link" if file.is_symlink() else "no file")
        with Image.open(file) as picture:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and picture.width * picture.height > most:
                raise ValueError(f"{picture.width} x {picture.height} pixels: Pillow takes {most}")
            image = pixels(picture, grey=shape[0] == 1)
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(on_one_line(file), _reason(error)) from error
    sizes = zip(shape, image.shape, strict=False)
    if len(shape) != 3 or any(wanted not in (None, size) for wanted, size in sizes):
        raise UsageError(
            f"{on_one_line(file)} has shape {tuple(image.shape)}, the victim takes {tuple(shape)}: "
            "resize the images, or resize inside the victim and give its input_shape accordingly"
        )
    return image


def pixels(picture: Image.Image, *, grey: bool) -> Tensor:
    """(1, H, W) or (3, H, W) float in [0, 1].

    Raises:
        ValueError: saying why it cannot be read as one opaque image of known range.
    """
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # what follows in a camera's MPO are previews
        raise ValueError(f"{frames} frames: save the one that is to be scored")
    if picture.mode == "F":
        return _of_floats(np.array(picture), channels=1 if grey else 3)
    if picture.mode not in _8_BITS:
        depth = "16 bits a pixel" if picture.mode.startswith("I;16") else f"mode {picture.mode}"
        raise ValueError(f"{depth}: convert it to 8-bit grey or RGB")
    if _transparent(picture):
        raise ValueError("transparent pixels: lay it over the background it is meant for")
    levels = np.array(picture.convert("L" if grey else "RGB"), dtype=np.float32)
    return torch.from_numpy(levels).view(*levels.shape[:2], -1).permute(2, 0, 1) / 255


def _transparent(picture: Image.Image) -> bool:
    if picture.mode not in ("LA", "PA", "RGBA") and "transparency" not in picture.info:
        return False
    lowest, _ = picture.convert("RGBA").getchannel("A").getextrema()
    return lowest < 255


def _of_floats(values: np.ndarray, channels: int) -> Tensor:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"floats from {low:.6g} to {high:.6g}, not from 0 to 1: divide them by the full range "
            "of their scale"
        )
    return torch.from_numpy(values).expand(channels, -1, -1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return on_one_line((str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__)
