"""Any one-stage detector as a victim: what an image moves is how many boxes are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.macs import count_macs
from effattack.counting.outside import outside
from effattack.counting.tallies import Count, every, tally
from effattack.models_zoo.detection.nms import expect_fraction
from effattack.models_zoo.detection.proposed import (
    Batch,
    answered,
    as_tensors,
    checked,
    expect_as_many,
    parts,
)
from effattack.models_zoo.detection.rules import Outcome, Rules
from effattack.models_zoo.detection.sizes import once
from effattack.tasks import Boxes
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded_margin, log_odds
from effattack.victim.trace import CANDIDATES

UNITS = {"boxes": "box", "pairs": "pair", "boxes_out": "box"}


class Size(NamedTuple):
    """What images of one size cost, whatever they show."""

    macs: int
    groups: tuple[int, ...]
    """How many boxes are proposed in each group."""


class Detector(Victim):
    """A one-stage detector: a network whose MACs never change, and NMS whose work does.

    Answers are rows left, top, right, bottom (pixels), score, class, by falling score. The gate
    ``boxes`` has a unit for each of the N boxes that the network proposes: its score is above the
    threshold, so it is handed on. Counts: ``boxes`` into NMS, ``pairs`` compared there (what judges
    it), ``boxes_out``. MACs stand beside them, one number for a size of image.

    What no image exceeds: n boxes and n(n - 1)/2 pairs, where n = min(N, max_nms), and
    min(n, max_det) boxes out. The cost of a unit is its share of these pairs, n(n - 1)/2N: what one
    more box adds, on average, on the way there; beyond max_nms, nothing.

    Boxes are cut to the image before NMS, as torchvision does. With a ``decode`` in numpy, whose
    time stands beside the score, no gradient passes: there is no gate, and only queries apply.

    Args:
        model: images (B, C, H, W) in [0, 1] -> raw maps; normalisation belongs inside.
        decode: raw maps -> boxes (B, N, 4) left, top, right, bottom in pixels, and scores (B, N) in
            [0, 1], or (B, N, classes), of which the best class counts. It may go on with the
            classes of scores (B, N), as (N,) or (B, N), and with the groups (N,) that ``top`` is
            of. Differentiable in torch; else in numpy.
        score: a box is handed on above it.
        iou: intersection over union above which NMS drops the worse of two boxes of one class.
        max_nms: the best-scored so many boxes go into NMS; None, without ``top``, is no
            deployment's setting, and the name says so.
        max_det: the best-scored so many boxes are the answer; NMS runs to its end all the same.
        top: of each group of boxes, the best-scored so many go on; None: all.
        input_shape: (C, H, W) of one image; None where a size is free.
        max_macs: of the largest image, where a size is free; attacks by gradients need it.
        name, data: see :class:`~effattack.Victim`.

    Raises:
        ContractError: if ``decode`` gives other shapes, no numbers, no probabilities, boxes whose
            sides change places, or more of them for one image than for another.
        UsageError: for a threshold or a cap out of range.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        decode: Callable[[Any], Sequence[Any]],
        score: float = 0.25,
        iou: float = 0.45,
        max_nms: int | None = 30_000,
        max_det: int | None = 300,
        *,
        top: int | None = None,
        input_shape: tuple[int | None, ...] = (3, None, None),
        max_macs: float = nan,
        name: str = "Detector",
        data: str | None = None,
    ) -> None:
        expect_fraction("score", score)
        rules = Rules(score, iou, max_nms, max_det, top)
        rules.expect_sound()
        super().__init__(
            name=name if max_nms or top else f"{name}, uncapped",
            family="detection",
            input_shape=input_shape,
            task=Boxes(cap=max_det),
            counts={each: Count(unit, partial(self._most, each)) for each, unit in UNITS.items()},
            currency="pairs",
            max_macs=max_macs,
            data=data,
        )
        self.model, self.decode, self.score, self.rules = model, decode, score, rules
        self.eval()
        example = self.example(1)
        with torch.no_grad():
            boxes, *_ = parts(name, self.decode(self.model(example)))
        self.sees = "gates" if isinstance(boxes, Tensor) else "answers"
        if None not in input_shape:
            self.max_macs = float(self._size(example).macs)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """Of images of this size."""
        if count == "macs":
            return every(self._size(batch).macs, batch)
        return super().ceiling(batch, count)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> boxes that stay (B, most of them, 6)."""
        found, kept = self._proposed(images), []
        for index in range(len(images)):
            kept.append(self.rules.deployed(found.image(index)))
            tally("boxes_out", len(kept[-1]))
        return answered(found, kept, self.rules.most(found.sizes)["boxes_out"])

    def trace(self, images: Tensor) -> Trace:
        found, size = self._proposed(images), self._size(images)
        expect_as_many(self.name, found, size.groups)
        done = [self.rules.stated(found.image(index)) for index in range(len(images))]
        handed_on = found.scores > self.score
        margin = bounded_margin(found.log_odds - log_odds(self.score), 1.0, handed_on)
        most = self.rules.most(size.groups)
        cost = max(1, most["pairs"]) / sum(size.groups)
        gate = Gate("boxes", margin, handed_on, torch.ones_like(handed_on), cost)
        return Trace(
            logits=answered(found, [each.kept for each in done], most["boxes_out"]),
            gates=(gate,) if self.sees == "gates" else (),
            macs=every(size.macs, images),
            aux={
                CANDIDATES: found.entered(done),
                **found.shown(self.score, images)._asdict(),
            },
            also=told(done, images),
            slack=found.nearest(done),
        )

    def _proposed(self, images: Tensor) -> Batch:
        """What the network proposes: both paths start here."""
        raw = self.model(images)
        if self.sees == "gates":
            given = self.decode(raw)
        else:
            with outside("decode"):
                given = as_tensors(self.decode(raw), images)
        return checked(self.name, given, images)

    def _size(self, images: Tensor) -> Size:
        def counted(grey: Tensor) -> Size:
            return Size(count_macs(self._proposed, grey), self._proposed(grey).sizes)

        return once(self, images, counted)

    def _most(self, count: str, images: Tensor) -> Tensor:
        return every(self.rules.most(self._size(images).groups)[count], images)


def told(done: Sequence[Outcome], images: Tensor) -> dict[str, Tensor]:
    """(B,) float64 each: the counts of images."""
    numbers = {
        "boxes": [len(each.entered) for each in done],
        "pairs": [each.pairs for each in done],
        "boxes_out": [len(each.kept) for each in done],
    }
    like: dict[str, Any] = {"dtype": torch.float64, "device": images.device}
    return {name: torch.tensor(found, **like) for name, found in numbers.items()}
