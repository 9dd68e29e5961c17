"""Boxes around objects, each with a score and a class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.tasks.shares import Shares, expect_share


class Boxes(Shares):
    """Detections: two boxes stand for the same thing if they have one class and overlap enough.

    Args:
        overlap: least intersection over union, in (0, 1].
        share: least share of boxes with a counterpart at which two answers agree.
        cap: most boxes of one image (``max_det``), 300 in most deployments.
    """

    noun = "boxes"
    columns = ("left", "top", "right", "bottom", "score", "class")

    def __init__(self, overlap: float = 0.5, share: float = 0.9, cap: int | None = 300) -> None:
        super().__init__(share, cap)
        self.overlap = expect_share("Boxes: overlap", overlap)

    def alike(self, a: Tensor, b: Tensor) -> Tensor:
        return (overlaps(a, b) >= self.overlap) & (a[:, None, 5] == b[None, :, 5])

    def example(self, count: int, generator: Generator) -> Tensor:
        boxes = super().example(count, generator)
        used = boxes[..., 4:5] >= 0
        boxes[..., 2:4] += boxes[..., :2]
        boxes[..., 5] = boxes[..., 5].round()
        return torch.where(used, boxes, -1.0)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4 or more), (m, 4 or more) -> (n, m): intersection over union, 1 of equal boxes."""
    a, b = a[:, None, :4].double(), b[None, :, :4].double()
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    common = sides.clamp_min(0).prod(2)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(2) for boxes in (a, b)]
    union = areas[0] + areas[1] - common
    share = common / torch.where(union > 0, union, 1.0)
    return torch.where((a == b).all(2), 1.0, share)
