"""A detector, and a recogniser that looks at each box: what an image moves is how many looks.

Where the recogniser decides how long it looks, the two savings multiply: boxes about nothing, each
looked at to the end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from effattack.counting.tallies import Count, tally
from effattack.errors import UsageError
from effattack.tasks import Boxes, Classes
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import score_lead
from effattack.victim.trace import CHOSEN_FROM

DETECTOR, RECOGNISER = "detector", "recogniser"
"""In ``Trace.stages``: where the work went."""


class Pipeline(Victim):
    """Boxes of the detector, each with the class that the recogniser gives its crop.

    A crop is the square about a box's middle, as wide as its longer side, cut to the image and to
    whole pixels, then resized (bilinear) to what the recogniser takes, prepared for it, and, where
    grey, repeated over its channels. All crops of a batch run at once.

    Gates are the detector's, where an open unit makes a whole look possible, and those of the
    recogniser, ``recogniser.NAME``, with its units box by box, for as many as can come out. Counts
    are the detector's, and ``looks``. MACs judge: those of the detector, and of every look. What
    the detector proposes (``CHOSEN_FROM``) is not shown on: nobody has named it.

    Args:
        detector: a victim whose task is ``Boxes``, and which counts ``boxes_out``.
        recogniser: a victim of images of one size, whose task is ``Classes``.
        prepare: crops (n, C, H, W) in [0, 1] -> the same, differentiable and one by one: what the
            recogniser was trained on may be lit otherwise. By default as they are.
        name, data: see :class:`~effattack.Victim`.

    Raises:
        UsageError: for victims of other tasks, or images of a free size.
    """

    def __init__(
        self,
        detector: Victim,
        recogniser: Victim,
        prepare: Callable[[Tensor], Tensor] = torch.clone,
        *,
        name: str = "Pipeline",
        data: str | None = None,
    ) -> None:
        _expect_fit(detector, recogniser)
        most = int(detector.ceiling(detector.example(1), "boxes_out").item())
        looks = Count("look", detector.counts["boxes_out"].ceiling)
        super().__init__(
            name=name,
            family=detector.family,
            domain=detector.domain,
            task=Boxes(cap=most),
            counts={**detector.counts, "looks": looks},
            max_macs=detector.max_macs + most * recogniser.max_macs,
            data=data,
        )
        self.detector, self.recogniser, self.prepare, self.most = (
            detector,
            recogniser,
            prepare,
            most,
        )
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> boxes (B, N, 6), the last column by the recogniser."""
        boxes = self.detector(images)
        there = boxes[..., 4] >= 0
        tally("looks", there.sum())
        if not there.any():
            return boxes
        return _renamed(boxes, there, self.recogniser(self.crops(images, boxes)))

    def trace(self, images: Tensor) -> Trace:
        first = self.detector.trace(images)
        boxes, there = first.logits, first.logits[..., 4] >= 0
        look = self.recogniser.trace(self.crops(images, boxes if there.any() else _whole(images)))
        boxes = _renamed(boxes, there, look.logits)
        looks = torch.zeros_like(there, dtype=torch.float64).masked_scatter(there, look.macs)
        lead = torch.ones_like(boxes[..., 4]).masked_scatter(there, score_lead(look.logits))
        edges = (squares(boxes) % 1 - 0.5).abs().amin(2).masked_fill(~there, 1)
        slack = pad(torch.minimum(lead, edges), (0, 1), value=1.0).amin(1).detach()
        spent = looks.sum(1)
        units = pad(there, (0, self.most - there.shape[1]))
        shown = {name: part for name, part in first.aux.items() if name != CHOSEN_FROM}
        return first._replace(
            logits=boxes,
            gates=(
                *(gate._replace(cost=self.recogniser.max_macs) for gate in first.gates),
                *(by_look(gate, units) for gate in look.gates),
            ),
            macs=first.macs + spent,
            stages={DETECTOR: first.macs, RECOGNISER: spent},
            aux=shown,
            also={**first.also, "looks": there.sum(1).double()},
            slack=slack if first.slack is None else torch.minimum(first.slack, slack),
        )

    def crops(self, images: Tensor, boxes: Tensor) -> Tensor:
        """What the recogniser sees of the boxes (B, N, 6) that are there, image by image."""
        channels, *size = self.recogniser.input_shape
        sides = images.new_tensor([images.shape[3], images.shape[2]]).repeat(2).long()
        found = []
        for image, rows in zip(images.split(1), boxes, strict=True):
            edges = squares(rows[rows[:, 4] >= 0]).round().long()
            first = edges[:, :2].clamp_min(0).minimum(sides[:2] - 1)
            last = edges[:, 2:].minimum(sides[2:]).maximum(first + 1)
            for left, top, right, bottom in torch.cat([first, last], 1).tolist():
                crop = image[:, :, top:bottom, left:right]
                found.append(interpolate(crop, size, mode="bilinear", align_corners=False))
        return self.prepare(torch.cat(found)).expand(-1, channels, -1, -1)


def squares(boxes: Tensor) -> Tensor:
    """(..., 4 or more) -> (..., 4): about the same middles, as wide as the longer side."""
    middle = (boxes[..., :2] + boxes[..., 2:4]) / 2
    half = (boxes[..., 2:4] - boxes[..., :2]).amax(-1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], -1).detach()


def _whole(images: Tensor) -> Tensor:
    """(B, 1, 6): a box about each image, for gates that nothing reaches."""
    return images.new_tensor([0, 0, images.shape[3], images.shape[2], 1, 0]).expand(
        len(images), 1, 6
    )


def _renamed(boxes: Tensor, there: Tensor, logits: Tensor) -> Tensor:
    classes = boxes[..., 5].masked_scatter(there, logits.argmax(1).to(boxes))
    return torch.cat([boxes[..., :5], classes[..., None]], 2)


def by_look(gate: Gate, there: Tensor) -> Gate:
    """A gate of all looks (looks, units) as one of inputs (B, N · units), by where there was a look
    (B, N) bool; no look, not reached."""
    mask = there[..., None].expand(*there.shape, gate.margin.shape[1])

    def spread(values: Tensor, elsewhere: float = 0.0) -> Tensor:
        rest = torch.full(mask.shape, elsewhere, dtype=values.dtype, device=values.device)
        return rest.masked_scatter(mask, values).flatten(1)

    cost = gate.cost
    if isinstance(cost, Tensor):
        cost = spread(cost, float(cost.amax()))
    return gate._replace(
        name=f"recogniser.{gate.name}",
        margin=spread(gate.margin),
        active=spread(gate.active),
        reached=spread(gate.reached),
        cost=cost,
        pushed=False,
    )


def _expect_fit(detector: Victim, recogniser: Victim) -> None:
    if not isinstance(detector.task, Boxes) or "boxes_out" not in detector.counts:
        raise UsageError(
            f"{detector.name} is no detector that counts its boxes out: give a Detector or an MTCNN"
        )
    if not isinstance(recogniser.task, Classes) or recogniser.domain.kind != "pixels":
        raise UsageError(f"{recogniser.name} classifies no images: give it crops to classify")
    for victim in (detector, recogniser):
        if None in victim.input_shape:
            raise UsageError(
                f"{victim.name} takes images of any size, and the work of a pipeline is bounded "
                "for one: give it an input_shape"
            )
    of_crops = recogniser.input_shape[0]
    if detector.input_shape[0] not in (1, of_crops):
        raise UsageError(
            f"{detector.name} sees {detector.input_shape[0]} channels, {recogniser.name} "
            f"{of_crops}: give both images of one kind"
        )
