"""Two-stage detectors as victims: every proposal that outlives NMS is looked at, and paid for.

After Faster R-CNN (Ren et al. 2015, arXiv 1506.01497): a first stage proposes boxes all over the
image, non-maximum suppression (NMS) leaves some, and heads run once per box that is left. So its
MACs move with the image, as those of a one-stage detector do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import nan
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs, register
from effattack.counting.tallies import Count, every, tally
from effattack.errors import ContractError
from effattack.models_zoo.detection.nms import intersection_over_union
from effattack.models_zoo.detection.proposed import Batch, answered, checked, expect_as_many
from effattack.models_zoo.detection.rules import Outcome, Proposed, Rules
from effattack.models_zoo.detection.sizes import once
from effattack.tasks import Boxes
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded_margin, log_odds
from effattack.victim.trace import CANDIDATES

register("torchvision.roi_align", None)  # interpolates and averages, as aten.grid_sampler_2d does

METHODS = ("features", "propose", "look")
UNITS = {"proposals": "proposal", "boxes": "box", "pairs": "pair", "boxes_out": "box"}


class Stages(Protocol):
    """The network of a two-stage detector, a module."""

    def features(self, images: Tensor) -> Any:
        """Images (B, C, H, W) in [0, 1] -> whatever the two others need; the same MACs always."""

    def propose(self, features: Any) -> Sequence[Any]:
        """Boxes (B, N, 4) in pixels and scores (B, N) in [0, 1]; after them, if any, classes (N,)
        that do not suppress each other, such as levels, and groups (N,) of ``Rules.top``."""

    def look(self, features: Any, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Proposals (n, 4) of each image -> of all n together, boxes (n, M, 4) in pixels and scores
        (n, M) in [0, 1] of M classes (M,); the same MACs for every proposal."""


class Size(NamedTuple):
    """What images of one size cost."""

    base: int
    """MACs without any proposal."""
    each: int
    """MACs of a proposal."""
    groups: tuple[int, ...]
    """Boxes of the first stage, of each group."""
    classes: int
    """Boxes that a proposal gives, M."""


class TwoStage(Victim):
    """A two-stage detector: work grows with the proposals that outlive the first NMS.

    Answers are rows left, top, right, bottom (pixels), score, class, by falling score. Two gates,
    each with a unit for every box of the first stage: ``candidates``, its score is above the
    threshold (where there is one); and, reached by those that go into NMS up to its cap,
    ``proposals``: it overlaps no better box that stays, so it is looked at. The second margin is
    the limit less the largest such overlap. Both cost the MACs of one proposal.

    Counts: ``proposals``; ``boxes`` and ``pairs`` of both passes of NMS; ``boxes_out``. MACs judge:
    those of the first stage, and those of a proposal times their number, at most ``max_det`` of
    ``proposals``, which is what ``max_macs`` states.

    Gradients reach the image through scores and boxes of the first stage, and through what is seen
    of a proposal, but not through where it is cut out.

    Args:
        network: see :class:`Stages`; any module with these three methods.
        proposals: rules of the first NMS, whose ``max_det`` caps the proposals.
        rules: those of the second NMS, into which each proposal goes once per class.
        input_shape: (C, H, W) of one image; None where a size is free.
        max_macs: of the largest image, where a size is free; attacks by gradients need it.
        name, data: see :class:`~effattack.Victim`.

    Raises:
        ContractError: if a method of the network gives other shapes, no numbers or no
            probabilities, or proposals do not all cost the same.
        UsageError: for a threshold or a cap out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        proposals: Rules,
        rules: Rules,
        *,
        input_shape: tuple[int | None, ...] = (3, None, None),
        max_macs: float = nan,
        name: str = "TwoStage",
        data: str | None = None,
    ) -> None:
        proposals.expect_sound()
        rules.expect_sound()
        super().__init__(
            name=name,
            family="detection",
            input_shape=input_shape,
            task=Boxes(cap=rules.max_det),
            counts={each: Count(unit, partial(self._most, each)) for each, unit in UNITS.items()},
            max_macs=max_macs,
            data=data,
        )
        if missing := [name for name in METHODS if not callable(getattr(network, name, None))]:
            raise ContractError(
                f"{name}: {type(network).__name__} has no {', no '.join(missing)}: give a module "
                f"with the methods {', '.join(METHODS)}, or a one-stage detector to Detector"
            )
        self.network: Any = network
        self.proposals, self.rules = proposals, rules
        self.eval()
        size = self._size(self.example(1))
        if None not in input_shape:
            self.max_macs = float(size.base + size.each * self._limits(size)["proposals"])

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        """Of images of this size, where proposals reach their cap."""
        if count == "macs":
            size = self._size(batch)
            return every(size.base + size.each * self._limits(size)["proposals"], batch)
        return super().ceiling(batch, count)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> boxes that stay (B, most of them, 6)."""
        features, found = self._proposed(images)
        looked_at = [self.proposals.deployed(found.image(index)) for index in range(len(images))]
        tally("proposals", sum(map(len, looked_at)))
        seen = self._looked(features, found, looked_at, images)
        kept = [self.rules.deployed(each.image(0)) for each in seen]
        tally("boxes_out", sum(map(len, kept)))
        return self._answered(seen, kept, images)

    def trace(self, images: Tensor) -> Trace:
        features, found = self._proposed(images)
        first = [self.proposals.stated(found.image(index)) for index in range(len(images))]
        looked_at = [each.kept for each in first]
        seen = self._looked(features, found, looked_at, images)
        second = [self.rules.stated(each.image(0)) for each in seen]
        size = self._size(images)
        expect_as_many(self.name, found, size.groups, "propose")
        also = {
            "proposals": [len(each.kept) for each in first],
            "boxes": [len(a.entered) + len(b.entered) for a, b in zip(first, second, strict=True)],
            "pairs": [a.pairs + b.pairs for a, b in zip(first, second, strict=True)],
            "boxes_out": [len(each.kept) for each in second],
        }
        like: dict[str, Any] = {"dtype": torch.float64, "device": images.device}
        counts = {name: torch.tensor(numbers, **like) for name, numbers in also.items()}
        heads = size.each * counts["proposals"]
        return Trace(
            logits=self._answered(seen, [each.kept for each in second], images),
            gates=self._gates(found, first, size.each),
            macs=size.base + heads,
            aux={
                CANDIDATES: found.entered(first),
                **found.shown(self.proposals.score, images, named=False)._asdict(),
            },
            also=counts,
            stages={"first stage": every(size.base, images), "looks at proposals": heads},
            slack=self._slack(first, second, seen).to(images),
        )

    def _proposed(self, images: Tensor) -> tuple[Any, Batch]:
        features = self.network.features(images)
        return features, checked(self.name, self.network.propose(features), images, "propose")

    def _looked(
        self, features: Any, found: Batch, looked_at: Sequence[Tensor], images: Tensor
    ) -> list[Batch]:
        """What the second stage says, of each image a batch of one."""
        rows = [boxes[kept] for boxes, kept in zip(found.boxes, looked_at, strict=True)]
        said = self.network.look(features, rows)
        if not isinstance(said, Sequence) or len(said) != 3:
            raise ContractError(
                f"{self.name}: look gives no three: return (boxes, scores, classes)"
            )
        boxes, scores, classes = said
        count, many = sum(map(len, rows)), len(classes)
        if boxes.shape != (count, many, 4) or scores.shape != (count, many):
            raise ContractError(
                f"{self.name}: look gave boxes {tuple(boxes.shape)} and scores "
                f"{tuple(scores.shape)} of {count} proposals and {many} classes: return "
                "(n, M, 4), (n, M) and (M,)"
            )
        split = [len(each) for each in rows]
        return [
            checked(
                self.name,
                (b.reshape(1, -1, 4), s.reshape(1, -1), classes.repeat(len(b))),
                images[:1],
                "look",
                least=0,
            )
            for b, s in zip(boxes.split(split), scores.split(split), strict=True)
        ]

    def _gates(self, found: Batch, first: Sequence[Outcome], each: int) -> tuple[Gate, ...]:
        units = [
            apart(found.image(index), outcome, self.proposals)
            for index, outcome in enumerate(first)
        ]
        margin, active, reached = map(torch.stack, zip(*units, strict=True))
        proposals = Gate("proposals", margin, active, reached, each)
        if (threshold := self.proposals.score) is None:
            return (proposals,)
        above = found.scores > threshold
        margin = bounded_margin(found.log_odds - log_odds(threshold), 1.0, above)
        return Gate("candidates", margin, above, torch.ones_like(above), each), proposals

    def _slack(
        self, first: Sequence[Outcome], second: Sequence[Outcome], seen: Sequence[Batch]
    ) -> Tensor:
        """(B,): of all choices but the gates; the second threshold is none."""
        closest = [min(a.slack, b.slack) for a, b in zip(first, second, strict=True)]
        if (threshold := self.rules.score) is not None:
            for index, each in enumerate(seen):
                near = (each.scores.detach() - threshold).abs().flatten().tolist()
                closest[index] = min([closest[index], *near])
        return torch.tensor(closest)

    def _answered(self, seen: Sequence[Batch], kept: Sequence[Tensor], images: Tensor) -> Tensor:
        most = self._limits(self._size(images))["boxes_out"]
        rows = [answered(each, [stay], most) for each, stay in zip(seen, kept, strict=True)]
        return torch.cat(rows)

    def _size(self, images: Tensor) -> Size:
        return once(self, images, self._counted)

    def _counted(self, grey: Tensor) -> Size:
        features, found = self._proposed(grey)
        whole = grey.new_tensor([[0, 0, grey.shape[3], grey.shape[2]]])
        look = self.network.look
        looks = [count_macs(look, features, [whole.repeat(n, 1)]) for n in range(4)]
        steps = {b - a for a, b in pairwise(looks)}
        if len(steps) > 1:
            raise ContractError(
                f"{self.name}: look costs {looks} MACs for 0 to 3 proposals: let every proposal "
                "cost the same"
            )
        (each,) = steps
        base = count_macs(self._proposed, grey) + looks[0]
        (seen,) = self._looked(features, found, [torch.arange(1, device=grey.device)], grey)
        return Size(base, each, found.sizes, seen.scores.shape[1])

    def _limits(self, size: Size) -> dict[str, int]:
        """What no image exceeds, of each count."""
        first = self.proposals.most(size.groups)
        second = self.rules.most([first["boxes_out"] * size.classes])
        both = {name: first[name] + second[name] for name in ("boxes", "pairs")}
        return {**both, "proposals": first["boxes_out"], "boxes_out": second["boxes_out"]}

    def _most(self, count: str, images: Tensor) -> Tensor:
        return every(self._limits(self._size(images))[count], images)


def apart(found: Proposed, done: Outcome, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """Margin, active and reached, each (N,): does a box overlap no better one that stays?

    Reached by boxes that go into NMS, those behind the last that ``max_det`` admits left out.
    """
    order = done.entered[found.scores.detach()[done.entered].argsort(descending=True, stable=True)]
    if len(done.kept) == rules.max_det:
        order = order[: 1 + int((order == done.kept[-1]).nonzero()[0, 0])]
    active, reached = (torch.zeros_like(found.scores, dtype=torch.bool) for _ in range(2))
    active[done.kept], reached[order] = True, True
    box, rival = _rivals(found, order, active)
    shares = intersection_over_union(found.boxes[box], found.boxes[rival])
    excess = torch.full_like(found.scores, rules.iou).index_put((box,), rules.iou - shares)
    return bounded_margin(excess, 1.0, active), active, reached


@torch.no_grad()
def _rivals(found: Proposed, order: Tensor, stays: Tensor) -> tuple[Tensor, Tensor]:
    """Which boxes overlap a better one that stays, (m,), and which one they overlap most, (m,)."""
    better = stays[order].nonzero()[:, 0]
    if not len(better):
        return order[:0], order[:0]
    shares = intersection_over_union(found.boxes[order, None], found.boxes[order[better]][None])
    shares = shares.nan_to_num(nan=0.0)
    if found.classes is not None:
        shares[found.classes[order, None] != found.classes[order[better]][None]] = 0.0
    shares[torch.arange(len(order), device=order.device)[:, None] <= better] = 0.0
    largest, where = shares.max(1)
    there = largest > 0
    return order[there], order[better[where]][there]
