"""Rules by which boxes go into non-maximum suppression (NMS), and stay: thresholds and caps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import tally
from effattack.errors import UsageError
from effattack.models_zoo.detection.nms import (
    expect_cap,
    expect_fraction,
    greedy_nms,
    most_pairs,
    suppressed,
)


class Proposed(NamedTuple):
    """What a network proposes in one image; the image does not move how many."""

    boxes: Tensor
    """(N, 4): left, top, right, bottom."""
    scores: Tensor
    """(N,) in [0, 1]"""
    classes: Tensor | None = None
    """(N,) whole numbers from 0; None: of one class all."""
    groups: Tensor | None = None
    """(N,): what ``Rules.top`` holds for; None: one group."""


class Outcome(NamedTuple):
    """What the rules do with one image."""

    entered: Tensor
    """(m,) which boxes go into NMS."""
    kept: Tensor
    """(k,) which of all boxes stay, by falling score."""
    pairs: int
    """How many of them are compared."""
    slack: float
    """How far the nearest choice is from its tie, that of ``score`` left out: it is a gate."""


class Rules(NamedTuple):
    """From proposals to boxes that stay: as torchvision and Ultralytics deploy them.

    A box is handed on if its score is above ``score``; of every group, the best ``top`` go on, of
    these the boxes whose sides are ``least`` and more, of these the best ``max_nms``; NMS runs to
    its end, and the best ``max_det`` stay.
    """

    score: float | None
    """In [0, 1); None: all boxes are handed on."""
    iou: float
    """In [0, 1]: overlap above which the worse of two boxes goes."""
    max_nms: int | None = 30_000
    max_det: int | None = 300
    top: int | None = None
    """``topk_candidates`` of torchvision."""
    least: float = 0.0
    """Shortest side that a box may have."""

    def expect_sound(self) -> None:
        """Raises:
        UsageError: naming the threshold or cap that is out of range.
        """
        if self.score is not None:
            expect_fraction("score", self.score)
        expect_fraction("iou", self.iou)
        for name in ("max_nms", "max_det", "top"):
            expect_cap(name, getattr(self, name))
        if not self.least >= 0:
            raise UsageError(f"least = {self.least!r}: give the shortest side in pixels, 0 or more")

    def deployed(self, found: Proposed) -> Tensor:
        """(k,) which boxes stay; tallies ``boxes`` that go into NMS, and ``pairs``."""
        entered, _ = self._entered(found)
        tally("boxes", len(entered))
        return entered[greedy_nms(*self._given(found, entered))]

    def stated(self, found: Proposed) -> Outcome:
        """The same, and its work, in closed form."""
        entered, slack = self._entered(found)
        done = suppressed(*self._given(found, entered))
        return Outcome(entered, entered[done.kept], done.pairs, min(slack, done.slack))

    def most(self, groups: Sequence[int]) -> dict[str, int]:
        """Boxes into NMS, pairs and boxes out that no image exceeds.

        Args:
            groups: how many proposals there are in each.
        """
        boxes = sum(n if self.top is None else min(n, self.top) for n in groups)
        boxes = boxes if self.max_nms is None else min(boxes, self.max_nms)
        out = boxes if self.max_det is None else min(boxes, self.max_det)
        return {"boxes": boxes, "pairs": most_pairs(boxes, None), "boxes_out": out}

    @torch.no_grad()
    def _entered(self, found: Proposed) -> tuple[Tensor, float]:
        """(m,) which boxes go into NMS, and how far the nearest of these choices is from a tie."""
        scores, slack = found.scores.detach(), 1.0
        chosen = torch.arange(len(scores), device=scores.device)
        if self.score is not None:
            chosen = chosen[scores > self.score]
        if self.top is not None:
            parts = [_best(chosen[of], scores, self.top) for of in _groups(found, chosen)]
            chosen = torch.cat([chosen[:0], *(part for part, _ in parts)])
            slack = min([slack, *(lead for _, lead in parts)])
        if self.least:
            boxes = found.boxes.detach()[chosen]
            excess = (boxes[:, 2:] - boxes[:, :2]).amin(1) - self.least
            slack = min([slack, *excess.abs().tolist()])
            chosen = chosen[excess >= 0]
        chosen, lead = _best(chosen, scores, self.max_nms)
        return chosen, min(slack, lead)

    def _given(self, found: Proposed, entered: Tensor) -> tuple[Any, ...]:
        """What NMS is given."""
        classes = None if found.classes is None else found.classes[entered]
        boxes, scores = found.boxes[entered], found.scores[entered]
        return boxes, scores, self.iou, classes, self.max_nms, self.max_det


def _groups(found: Proposed, chosen: Tensor) -> list[Tensor]:
    """(m,) bool each: which of the boxes chosen are of a group."""
    if found.groups is None:
        return [torch.ones_like(chosen, dtype=torch.bool)]
    groups = found.groups[chosen]
    return [groups == group for group in groups.unique()]


def _best(chosen: Tensor, scores: Tensor, most: int | None) -> tuple[Tensor, float]:
    """The best-scored ``most`` of some boxes, and the lead of the last of them over the next."""
    if most is None or len(chosen) <= most:
        return chosen, 1.0
    order = chosen[scores[chosen].argsort(descending=True, stable=True)]
    return order[:most], float(scores[order[most - 1]] - scores[order[most]])
