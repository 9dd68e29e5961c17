"""A tiny two-stage detector, as a user writes one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from effattack.models_zoo.detection.rules import Rules
from effattack.models_zoo.detection.two_stage import TwoStage

SIDE = 3
"""Cells of what is cut out of a proposal."""


class TinyStages(nn.Module):
    """One proposal per cell of 4 x 4 pixels, and a linear head on 3 x 3 cells of each."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.maps = nn.Conv2d(8, 5, 1)
        self.head = nn.Linear(8 * SIDE * SIDE, 4 * classes + classes)
        self.classes = classes

    def features(self, images: Tensor) -> Tensor:
        return self.trunk(images * 2 - 1)

    def propose(self, features: Tensor) -> tuple[Tensor, Tensor]:
        down, across = (torch.arange(size) for size in features.shape[2:])
        centres = torch.cartesian_prod(down, across).flip(1).to(features) * 4 + 2
        cells = self.maps(features).flatten(2).transpose(1, 2)
        sides = 3 + 6 * (4 * cells[..., :4]).sigmoid()
        boxes = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], 2)
        return boxes, (20 * cells[..., 4] + 5).sigmoid()

    def look(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        cut = roi_align(features, boxes, SIDE, 0.25, 2)
        said = self.head(cut.flatten(1))
        moves, logits = said.split([4 * self.classes, self.classes], 1)
        placed = torch.cat(boxes)[:, None] + moves.view(-1, self.classes, 4)
        return placed, (4 * logits).sigmoid(), torch.arange(self.classes)


def two_stage(score: float | None = 0.5, most: int | None = 40, **settings: Any) -> TwoStage:
    """Of images 32 x 32: 64 boxes of the first stage."""
    return TwoStage(
        TinyStages(),
        Rules(score, 0.5, max_nms=None, max_det=most),
        Rules(0.4, 0.5, max_nms=None, max_det=20),
        **{"input_shape": (3, 32, 32), **settings},
    )
