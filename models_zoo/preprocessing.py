"""Resizing, cropping and normalisation as the first layer of a model.

Victims take images in [0, 1]; what a network wants to see instead belongs inside. The models of a
cascade may each want something else. All of it is differentiable, and multiplies no matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.functional import interpolate

from effattack.errors import UsageError


class Preprocess(nn.Module):
    """Shorter side resized (antialiased), centre cropped, normalised; as timm evaluates.

    Args:
        mean, std: per channel, or one number for all.
        resize: pixels of the shorter side; None leaves the size as it is.
        crop: pixels of both sides, at most ``resize``; None crops nothing.
        interpolation: "bicubic" or "bilinear".

    Raises:
        UsageError: for a crop that is larger than the (resized) image; without ``resize``, at the
            first image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | Sequence[float] | Tensor = 0.0,
        std: float | Sequence[float] | Tensor = 1.0,
        *,
        resize: int | None = None,
        crop: int | None = None,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        if resize is not None and crop is not None and crop > resize:
            raise UsageError(f"crop = {crop} of a shorter side of {resize} pixels: crop less")
        self.resize, self.crop, self.interpolation = resize, crop, interpolation
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, crop, crop)."""
        height, width = images.shape[-2:]
        if self.resize is not None and self.resize != min(height, width):
            shorter = min(height, width)
            height, width = self.resize * height // shorter, self.resize * width // shorter
            mode = self.interpolation
            images = interpolate(images, size=(height, width), mode=mode, antialias=True)
        if self.crop is not None:
            if self.crop > min(height, width):
                raise UsageError(
                    f"crop = {self.crop} of an image of {height} x {width} pixels: resize it first"
                )
            top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
            images = images[..., top : top + self.crop, left : left + self.crop]
        return (images - self.mean) / self.std


def preprocessed(model: nn.Module) -> nn.Sequential:
    """A timm model behind the preprocessing that its configuration asks for, in eval mode.

    ``preprocessed(timm.create_model("mobilenetv2_100", pretrained=True))`` takes images in [0, 1]
    of any size.
    """
    config: dict[str, Any] = resolve_model_data_config(model)
    crop = config["input_size"][-1]
    layer = Preprocess(
        config["mean"],
        config["std"],
        resize=floor(crop / config["crop_pct"]),
        crop=crop,
        interpolation=config["interpolation"],
    )
    return nn.Sequential(layer, model).eval()
