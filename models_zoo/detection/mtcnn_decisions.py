"""What MTCNN decided on a batch: what networks let through, what NMS left, how near the ties."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.models_zoo.detection.mtcnn_nms import OVER_UNION, Overlap, Suppression, suppressed
from effattack.victim.margins import bounded_margin, log_odds


class Seen(NamedTuple):
    """Crops that a network has seen, of all images of a batch."""

    image: Tensor
    """(n,) of the batch."""
    cell: Tensor
    """(n,) of P-Net, from which it came."""
    boxes: Tensor
    """(n, 4): squares, before they are cut to whole pixels."""
    logits: Tensor
    """(n, 2)"""
    shares: Tensor
    """(n, 4): by which regression moves the sides."""
    threshold: float

    @property
    def scores(self) -> Tensor:
        """(n,) probabilities of a face."""
        return self.logits.softmax(1)[:, 1]

    @property
    def passes(self) -> Tensor:
        """(n,) bool: the network lets it through."""
        return self.scores > self.threshold

    @property
    def excess(self) -> Tensor:
        """(n,) log-odds of a face beyond the threshold."""
        return self.logits[:, 1] - self.logits[:, 0] - log_odds(self.threshold)

    @property
    def margin(self) -> Tensor:
        """(n,) that decision as a margin."""
        return bounded_margin(self.excess, 1.0, self.passes)

    @property
    def near(self) -> Tensor:
        """(n,) how far the box is from other whole pixels, relative to its coordinates."""
        boxes = self.boxes.detach()
        return ((boxes - boxes.round()).abs() / boxes.abs().clamp_min(1)).amin(1)


class Run(NamedTuple):
    """What was decided on a batch."""

    odds: Tensor
    """(B, cells) log-odds of a face, of every cell of P-Net."""
    candidates: Tensor
    """(B, cells) bool"""
    refined: Seen
    final: Seen
    faces: Tensor
    """(B, most of one image, 6)"""
    proposals: Tensor
    """(B, most of one image, 6): what O-Net says of its crops, log-odds in place of scores."""
    passes: list[list[Suppression]]
    """Of each image, all passes of NMS in their order."""


def outlived(
    seen: Seen,
    boxes: Tensor,
    passes: list[list[Suppression]],
    limit: float,
    overlap: Overlap = OVER_UNION,
) -> Tensor:
    """(m,) which crops a network lets through and NMS leaves, image by image."""
    scores, stay = seen.scores, []
    for index, done in enumerate(passes):
        mine = (seen.passes & (seen.image == index)).nonzero()[:, 0]
        done.append(suppressed(boxes[mine], scores[mine], limit, overlap))
        stay.append(mine[done[-1].stay])
    return torch.cat(stay)


def told(run: Run) -> tuple[dict[str, Tensor], Tensor]:
    """(B,) counts of NMS in closed form, and (B,) distance of all hard choices to their ties."""
    found = [[one.told() for one in done] for done in run.passes]
    like: dict[str, Any] = {"dtype": torch.float64, "device": run.odds.device}
    counts = {
        "candidates": [sum(len(one.boxes) for one in done) for done in run.passes],
        "pairs": [sum(pairs for pairs, _ in done) for done in found],
    }
    slack = torch.tensor([min(tie for _, tie in done) for done in found], **like)
    falls = [done[-1].scores[done[-1].kept].diff().abs() for done in run.passes]
    order = torch.stack([fall.amin() if len(fall) else fall.new_ones(()) for fall in falls])
    slack = torch.minimum(slack, order.double())
    for seen, near in (
        (run.refined, run.refined.near),
        (run.final, torch.minimum(run.final.near, run.final.margin.detach().abs())),
    ):
        slack = slack.scatter_reduce(0, seen.image, near.double(), "amin")
    return {name: torch.tensor(values, **like) for name, values in counts.items()}, slack
