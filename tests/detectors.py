"""A tiny one-stage detector, as a user writes one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effattack.models_zoo.detection.detector import Detector

CELLS = 4
"""Pixels from one cell to the next."""


class Tiny(nn.Module):
    """One box per cell of 4 x 4 pixels: four sides and the logits of some classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4 + classes, 3, 2, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images * 2 - 1)


def decode(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of 6 to 18 pixels around each cell, and probabilities around a half."""
    down, across = (torch.arange(size, device=maps.device) for size in maps.shape[2:])
    centres = torch.cartesian_prod(down, across).flip(1).to(maps) * CELLS + CELLS / 2
    cells = maps.flatten(2).transpose(1, 2)
    sides = 3 + 6 * cells[..., :4].sigmoid()
    boxes = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], 2)
    return boxes, (20 * cells[..., 4:]).sigmoid()


def detector(**settings: Any) -> Detector:
    """Of images 32 x 32: 64 boxes, of which about half are handed on."""
    return Detector(Tiny(), decode, **{"score": 0.9, "input_shape": (3, 32, 32), **settings})


def noise(count: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator) / 255
