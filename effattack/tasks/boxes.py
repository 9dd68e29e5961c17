"""Boxes around objects, each with a score and a class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.tasks.shares import Shares, assigned, expect_share


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

    def lead(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """(B,) in [-1, 1], by scores: how far boxes are from ceasing to agree, or from agreeing.

        Where they agree, the least score of a box with a counterpart, 1 of none. Elsewhere minus
        the mean score of the boxes without one, a wanted box that is missing counting 1: what is
        too much is told to go, what is missing has no gradient.
        """
        agrees = self.agree(wanted, outputs)
        members = zip(self.members(outputs), self.members(wanted), strict=True)
        leads = [
            _lead(found[:, 4], list(assigned(self.alike(want, found).tolist())), len(want), agree)
            for (found, want), agree in zip(members, agrees.tolist(), strict=True)
        ]
        return torch.stack(leads)

    def example(self, count: int, generator: Generator) -> Tensor:
        boxes = super().example(count, generator)
        used = boxes[..., 4:5] >= 0
        boxes[..., 2:4] += boxes[..., :2]
        boxes[..., 5] = boxes[..., 5].round()
        return torch.where(used, boxes, -1.0)


def _lead(scores: Tensor, mates: list[int], wanted: int, agrees: bool) -> Tensor:
    """Of one image: scores (n,) of the boxes found, and which of them have a counterpart."""
    apart = torch.ones_like(scores, dtype=torch.bool)
    apart[mates] = False
    if agrees:
        return scores[~apart].amin() if mates else scores.new_ones(())
    missing = wanted - len(mates)
    return -(scores[apart].sum() + missing) / (apart.sum() + missing)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4 or more), (m, 4 or more) -> (n, m): intersection over union, 1 of equal boxes."""
    a, b = a[:, None, :4].double(), b[None, :, :4].double()
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    common = sides.clamp_min(0).prod(2)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(2) for boxes in (a, b)]
    union = areas[0] + areas[1] - common
    share = common / torch.where(union > 0, union, 1.0)
    return torch.where((a == b).all(2), 1.0, share)
