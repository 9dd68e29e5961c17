"""Average precision of detections: the area below precision over recall, as VOC has it since 2010.

Everingham et al., "The PASCAL Visual Object Classes Challenge: a Retrospective", IJCV 2015. Of one
class, all boxes of all images are taken by falling score; a box is right where it overlaps enough
with a true box of its image that no better one has taken. Precision at a recall is the best one at
that recall or beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.tasks.boxes import overlaps


def average_precision(found: Tensor, truth: Tensor, overlap: float = 0.5) -> float:
    """Mean over the classes that occur in ``truth``; NaN if none does.

    Args:
        found: (B, N, 6) as task ``Boxes`` has them: left, top, right, bottom, score, class.
        truth: (B, M, 6), score -1 in rows that pad.
        overlap: least intersection over union.
    """
    classes = truth[..., 5][truth[..., 4] >= 0].unique()
    each = [_of_class(found, truth, int(kind), overlap) for kind in classes]
    return torch.tensor(each, dtype=torch.float64).mean().item()


def _of_class(found: Tensor, truth: Tensor, kind: int, overlap: float) -> float:
    scores, right, there = [], [], 0
    for boxes, true in zip(found, truth, strict=True):
        boxes, true = (rows[(rows[:, 4] >= 0) & (rows[:, 5] == kind)] for rows in (boxes, true))
        boxes = boxes[boxes[:, 4].argsort(descending=True, stable=True)]
        scores.append(boxes[:, 4])
        right.append(_taken(overlaps(boxes, true), overlap))
        there += len(true)
    hits = torch.cat(right)[torch.cat(scores).argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    return float((best * hits).sum() / there)


def _taken(shares: Tensor, overlap: float) -> Tensor:
    """(n, m) -> (n,) bool: boxes by falling score, each taking the true box it overlaps most."""
    right = torch.zeros(len(shares), dtype=torch.bool)
    free = torch.ones(shares.shape[1], dtype=torch.bool)
    for row, share in enumerate(shares if shares.shape[1] else ()):
        best = int(share.argmax())
        right[row] = share[best] >= overlap and free[best]
        free[best] &= ~right[row]
    return right
