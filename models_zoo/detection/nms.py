"""Greedy non-maximum suppression (NMS): as it is deployed, and its work in closed form.

The best box stays, all that overlap it by more than a limit go, and so on with the rest. The work
is in pairs: each box that stays is compared with those still there behind it. A deployed loop
(:func:`greedy_nms`, and the one of ``torchvision.ops.nms`` on a CPU) makes as many comparisons as
:func:`suppressed` states without it.

Where boxes have classes, all are suppressed in one pass, those of a class moved away from all
others, as Ultralytics' YOLO does and torchvision does up to 1,000 boxes (beyond, on a CPU, it takes
class by class: the same boxes stay, and only pairs of one class are compared).
"""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import tally
from effattack.errors import UsageError

BLOCK = 256
"""Boxes that are compared with all behind them at once in :func:`suppressed`."""


class Suppressed(NamedTuple):
    """What greedy NMS does with the boxes of one image."""

    kept: Tensor
    """(k,) long: which boxes stay, by falling score, at most ``max_det``."""
    pairs: int
    """How many pairs are compared."""
    slack: float
    """How far the nearest choice that matters is from its tie: the overlap of a compared pair from
    the limit; the scores of two boxes that stay in a row, or of one and another that it drops. At
    most 1."""


@torch.no_grad()
def greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    iou: float,
    classes: Tensor | None = None,
    max_nms: int | None = 30_000,
    max_det: int | None = 300,
) -> Tensor:
    """(k,) long: the boxes of one image that stay, by falling score; tallies ``pairs``.

    The loop runs to its end whatever ``max_det`` is, as deployed code does.

    Args:
        boxes: (n, 4): left, top, right, bottom.
        scores: (n,); of equal ones, the first box is the better.
        iou: intersection over union above which the worse of two boxes goes.
        classes: (n,) whole numbers from 0; boxes suppress those of their own class only.
        max_nms: the best-scored so many take part, the others are dropped; None: all.
        max_det: the best-scored so many stay; None: all.

    Raises:
        UsageError: for NaN, or caps or a limit out of range.
    """
    order, rest = _sorted(boxes, scores, iou, classes, max_nms, max_det)
    kept, alive = [], torch.arange(len(rest), device=rest.device)
    while len(alive):
        kept.append(alive[:1])
        best, rest, alive = rest[0], rest[1:], alive[1:]
        tally("pairs", len(alive))
        apart = ~over(best, rest, iou)
        rest, alive = rest[apart], alive[apart]
    return order[torch.cat(kept) if kept else alive][:max_det]


@torch.no_grad()
def suppressed(
    boxes: Tensor,
    scores: Tensor,
    iou: float,
    classes: Tensor | None = None,
    max_nms: int | None = 30_000,
    max_det: int | None = 300,
) -> Suppressed:
    """What :func:`greedy_nms` keeps and compares, block by block, with the same arguments.

    Within a block, what stays is the fixed point of "overlaps no better box that stays", which is
    unique (Zheng et al. 2020, arXiv 2005.03572). A box is compared with those that stay before it,
    up to the first that it overlaps.
    """
    order, rows = _sorted(boxes, scores, iou, classes, max_nms, max_det)
    count = len(rows)
    alive = torch.ones(count, dtype=torch.bool, device=rows.device)
    scores = scores.detach()[order]
    pairs, slack = 0, 1.0
    for begin in range(0, count, BLOCK):
        block = begin + alive[begin : begin + BLOCK].nonzero()[:, 0]
        shares = intersection_over_union(rows[block, None], rows[None]).double()
        behind = block[:, None] < torch.arange(count, device=rows.device)
        hit = behind & (shares > iou)
        stay = _fixed_point(hit[:, block])
        block, hit, shares = block[stay], hit[stay], shares[stay]
        met = behind[stay] & alive & (hit.cumsum(0) - hit.long() == 0)
        pairs += int(met.sum())
        leads = scores[block, None] - scores[None]
        slack = min(slack, _least((shares - iou).abs()[met]), _least(leads[met & hit]))
        alive &= ~hit.any(0)
    slack = min(slack, _least(-scores[alive].diff()))
    return Suppressed(order[alive][:max_det], pairs, slack)


def most_pairs(boxes: int, max_nms: int | None = 30_000) -> int:
    """Pairs that no input exceeds: n(n - 1)/2 with n = min(boxes, max_nms), where none overlap."""
    taken = boxes if max_nms is None else min(boxes, max_nms)
    return taken * (taken - 1) // 2


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4), (..., 4) -> (...); NaN of two boxes without any area, which suppress nothing."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    common = sides[..., 0] * sides[..., 1]
    return common / (area(a) + area(b) - common)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...)"""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def over(a: Tensor, b: Tensor, iou: float) -> Tensor:
    """(...) bool: whether boxes overlap by more than ``iou``, in double precision as torchvision
    compares it."""
    return intersection_over_union(a, b).double() > iou


def expect_cap(name: str, cap: int | None) -> None:
    """Raises:
    UsageError: if a cap is no whole number from 1, or None.
    """
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise UsageError(f"{name} = {cap!r}: give a whole number of at least 1, or None for no cap")


def expect_fraction(name: str, value: float, least: float = 0.0) -> None:
    """Raises:
    UsageError: if a threshold does not lie in [least, 1].
    """
    if not (isinstance(value, Real) and least <= value <= 1):
        raise UsageError(f"{name} = {value!r} is out of range: give a number in [{least:g}, 1]")


def _sorted(
    boxes: Tensor,
    scores: Tensor,
    iou: float,
    classes: Tensor | None,
    max_nms: int | None,
    max_det: int | None,
) -> tuple[Tensor, Tensor]:
    """Which boxes take part, by falling score, and where they stand, each class apart."""
    expect_fraction("iou", iou)
    expect_cap("max_nms", max_nms)
    expect_cap("max_det", max_det)
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise UsageError(
            f"boxes {tuple(boxes.shape)} with scores {tuple(scores.shape)}: give (n, 4) and (n,)"
        )
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores.detach()).all()):
        raise UsageError("boxes or scores contain NaN or infinity: drop them, or mend decode")
    order = scores.detach().argsort(descending=True, stable=True)[:max_nms]
    placed = boxes
    if classes is not None and len(boxes):
        apart = boxes.amax() - boxes.amin().clamp_max(0) + 1
        placed = boxes + (classes.to(boxes) * apart)[:, None]
    return order, placed[order]


def _least(distances: Tensor) -> float:
    """At most 1; a pair without any area has no overlap to speak of."""
    distances = distances[~distances.isnan()]
    return min(1.0, float(distances.amin())) if len(distances) else 1.0


def _fixed_point(hit: Tensor) -> Tensor:
    """(m,) bool: of boxes by falling score, those that overlap no better one that stays; of
    ``hit`` (m, m), row before column."""
    stay = torch.ones(len(hit), dtype=torch.bool, device=hit.device)
    while True:
        after = ~hit[stay].any(0)
        if (after == stay).all():
            return stay
        stay = after
