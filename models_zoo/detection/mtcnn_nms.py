"""Non-maximum suppression (NMS) as MTCNN has it, and its work in closed form.

Two measures of overlap, of continuous boxes and of boxes of whole pixels, and passes that remember
what they decided. Boxes are rows left, top, right, bottom in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import tally


class Overlap(NamedTuple):
    """How much two boxes share, as a fraction of some area."""

    extra: int
    """Pixels that a box has beyond the difference of its sides."""
    of: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Of which area: from the two of the boxes, and the common one."""

    def areas(self, boxes: Tensor) -> Tensor:
        """(..., 4) -> (...)"""
        return (boxes[..., 2:] - boxes[..., :2] + self.extra).prod(-1)

    def shares(self, a: Tensor, b: Tensor, areas: Tensor, others: Tensor) -> Tensor:
        """(..., 4), (..., 4) and their areas (...), (...) -> (...)."""
        sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
        common = (sides + self.extra).clamp_min(0).prod(-1)
        return common / self.of(areas, others, common)

    def of_all(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., n, 4), (..., m, 4) -> (..., n, m)."""
        a, b = a[..., :, None, :], b[..., None, :, :]
        return self.shares(a, b, self.areas(a), self.areas(b))


OVER_UNION = Overlap(0, lambda area, other, common: area + other - common)
OVER_SMALLER = Overlap(1, lambda area, other, common: torch.minimum(area, other))


class Suppression(NamedTuple):
    """One pass of greedy non-maximum suppression over boxes of one image.

    The best box stays, those that overlap it by more than ``limit`` go, and so on with the rest.
    """

    boxes: Tensor
    """(n, 4), by falling score."""
    scores: Tensor
    """(n,)"""
    kept: Tensor
    """(k,) which of them stay."""
    order: Tensor
    """(n,) where they stood before they were sorted."""
    limit: float
    overlap: Overlap
    fixed: bool
    """The boxes do not depend on the image."""

    @property
    def stay(self) -> Tensor:
        """(k,) which of the boxes given stay, by falling score."""
        return self.order[self.kept]

    def told(self) -> tuple[int, float]:
        """How many pairs were compared, in closed form, and how far the nearest choice was from
        its tie.

        A box is compared with those that stay before it, up to the first that it overlaps.
        """
        if len(self.boxes) < 2:
            return 0, 1.0
        shares = self.overlap.of_all(self.boxes[self.kept], self.boxes)
        behind = self.kept[:, None] < torch.arange(len(self.boxes), device=self.kept.device)
        hit = behind & (shares > self.limit)
        compared = behind & (hit.cumsum(0) - hit.long() == 0)
        leads = (self.scores[self.kept, None] - self.scores[None]).masked_fill(~hit, 1.0)
        ties = [leads.amin()]
        if not self.fixed:
            ties.append((shares - self.limit).abs().masked_fill(~compared, 1.0).amin())
        return int(compared.sum()), float(torch.stack(ties).amin())


@torch.no_grad()
def suppressed(
    boxes: Tensor,
    scores: Tensor,
    limit: float,
    overlap: Overlap = OVER_UNION,
    fixed: bool = False,
) -> Suppression:
    """Greedy non-maximum suppression; tallies ``candidates`` and ``pairs``.

    Args:
        boxes: (n, 4).
        scores: (n,); of equal ones, the first box is the better.
        limit: how much two boxes that stay may overlap.
        overlap: how much that is.
        fixed: the boxes do not depend on the image.
    """
    boxes, scores = boxes.detach(), scores.detach()
    scores, order = scores.sort(descending=True, stable=True)
    boxes = boxes[order]
    tally("candidates", len(boxes))
    kept: list[Tensor] = []
    alive, rest, areas = torch.arange(len(boxes), device=boxes.device), boxes, overlap.areas(boxes)
    while len(alive):
        kept.append(alive[:1])
        tally("pairs", len(alive) - 1)
        shares = overlap.shares(rest[0], rest[1:], areas[0], areas[1:])
        apart = 1 + (~(shares > limit)).nonzero()[:, 0]
        alive, rest, areas = alive[apart], rest[apart], areas[apart]
    return Suppression(
        boxes, scores, torch.cat(kept) if kept else alive, order, limit, overlap, fixed
    )
