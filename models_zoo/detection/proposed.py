"""What a network proposes in each image of a batch, before any box is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.errors import ContractError
from effattack.models_zoo.detection.rules import Outcome, Proposed
from effattack.tasks.shares import NONE
from effattack.victim.proposing import UNNAMED, Proposals

ROUNDING = 1e-5
"""By which a sum of probabilities may exceed 1."""


class Batch(NamedTuple):
    """N boxes in each of B images of one size."""

    boxes: Tensor
    """(B, N, 4): left, top, right, bottom, within the image."""
    scores: Tensor
    """(B, N) in [0, 1]"""
    classes: Tensor | None
    """(B, N) long; None: of one class all."""
    groups: Tensor | None
    """(N,) long; None: one group."""
    leads: Tensor | None
    """(B, N): of the best class over the second; None: there was no choice."""

    def image(self, index: int) -> Proposed:
        """Of one image."""
        classes = None if self.classes is None else self.classes[index]
        return Proposed(self.boxes[index], self.scores[index], classes, self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Boxes of each group."""
        if self.groups is None:
            return (self.scores.shape[1],)
        return tuple(self.groups.unique(return_counts=True)[1].tolist())

    def shown(self, threshold: float | None, images: Tensor, *, named: bool = True) -> Proposals:
        """What goes into the trace of images (B, C, H, W); without ``named``, classes are none."""
        unnamed = torch.full_like(self.scores, UNNAMED)
        classes = unnamed if self.classes is None or not named else self.classes.to(unnamed)
        height, width = images.shape[-2:]
        return Proposals(
            self.boxes,
            self.scores,
            classes,
            unnamed.new_full((len(images), 1), threshold or 0.0),
            unnamed.new_tensor([width, height]).repeat(len(images), 1),
        )

    @property
    def log_odds(self) -> Tensor:
        """(B, N): log(s / (1 - s)) of the scores, finite."""
        kind = torch.finfo(self.scores.dtype)
        return (
            self.scores.clamp_min(kind.tiny).log() - (-self.scores.clamp_max(1 - kind.eps)).log1p()
        )

    def entered(self, done: Sequence[Outcome]) -> Tensor:
        """(B, N, 4): the boxes that go into NMS, NaN in the rows of the others."""
        found = self.boxes.detach()
        boxes = torch.full_like(found, torch.nan)
        for index, each in enumerate(done):
            boxes[index, each.entered] = found[index, each.entered]
        return boxes

    def nearest(self, done: Sequence[Outcome]) -> Tensor:
        """(B,): the smallest distance of a choice from its tie, of every image."""
        slack = torch.tensor([each.slack for each in done]).to(self.scores)
        if self.leads is None:
            return slack
        leads = [leads[each.entered] for leads, each in zip(self.leads, done, strict=True)]
        closest = [lead.amin() if len(lead) else lead.new_ones(()) for lead in leads]
        return torch.minimum(slack, torch.stack(closest).detach())


def parts(name: str, given: Any, method: str = "decode") -> list[Any]:
    """Boxes, scores, classes and groups, as ``method`` gave them.

    Raises:
        ContractError: where it gave something else.
    """
    if not isinstance(given, Sequence) or not 2 <= len(given) <= 4:
        many = f" of {len(given)}" if isinstance(given, Sequence) else ""
        raise ContractError(
            f"{name}: {method} returned a {type(given).__name__}{many}: return (boxes, scores), "
            "(boxes, scores, classes) or (boxes, scores, classes, groups)"
        )
    return [*given, None, None][:4]


def checked(name: str, given: Any, images: Tensor, method: str = "decode", least: int = 1) -> Batch:
    """What a method gave for images, its best classes chosen, its boxes cut to the image.

    Args:
        name: of the victim.
        given: boxes and scores, and what may go on behind them.
        images: (B, C, H, W).
        method: that gave them.
        least: boxes of an image.

    Raises:
        ContractError: for other shapes, NaN or infinity, scores that are no probabilities, sides
            that change places, or classes and groups that are none.
    """
    boxes, scores, classes, groups = parts(name, given, method)
    count = boxes.shape[1] if isinstance(boxes, Tensor) and boxes.dim() == 3 else -1
    many = isinstance(scores, Tensor) and scores.dim() == 3
    expected = ((len(images), count, 4), (len(images), count))
    found = (_shape(boxes), _shape(scores)[:2])
    if found != expected or count < least or (many and classes is not None):
        raise ContractError(
            f"{name}: {method} gave boxes {_shape(boxes)} and scores {_shape(scores)} for "
            f"{len(images)} images: return boxes (B, N, 4), N at least 1 and the same for all "
            "images, and scores (B, N) or (B, N, classes), and classes only beside scores (B, N)"
        )
    _expect_numbers(f"{name}: {method}", boxes, scores)
    _expect_sides_in_place(f"{name}: {method}", boxes)
    _expect_names(f"{name}: {method}", count, len(images), classes, groups)
    leads = _leads(scores) if many else None
    if many:
        scores, classes = scores.max(2)
    if classes is not None:
        classes = classes.expand(len(images), count)
    height, width = images.shape[-2:]
    most = boxes.new_tensor([width, height, width, height])
    return Batch(boxes.clamp_min(0).minimum(most), scores, classes, groups, leads)


def expect_as_many(name: str, found: Batch, sizes: tuple[int, ...], method: str = "decode") -> None:
    """Raises:
    ContractError: where an image moves how many boxes are proposed, which no ceiling can know.
    """
    if found.sizes != sizes:
        raise ContractError(
            f"{name}: {method} gave {sum(found.sizes)} boxes for these images, {sum(sizes)} for a "
            "grey one of their size: return all that the network proposes; thresholds, caps and "
            "NMS choose among them here"
        )


def answered(found: Batch, kept: Sequence[Tensor], most: int) -> Tensor:
    """(B, most, 6): the boxes that stay, as the task ``Boxes`` has them."""
    answers = []
    for index, stay in enumerate(kept):
        boxes, scores, classes, _ = found.image(index)
        classes = torch.zeros_like(scores) if classes is None else classes
        columns = [boxes[stay], scores[stay, None], classes[stay, None].to(boxes)]
        answers.append(pad(torch.cat(columns, 1), (0, 0, 0, most - len(stay)), value=NONE))
    return torch.stack(answers)


def as_tensors(given: Sequence[Any], images: Tensor) -> list[Tensor | None]:
    """Arrays of numpy as tensors, floats in the precision of the images."""
    tensors = [None if part is None else torch.from_numpy(np.array(part)) for part in given]
    return [
        part if part is None else part.to(images if part.is_floating_point() else images.device)
        for part in tensors
    ]


def _expect_numbers(gave: str, boxes: Tensor, scores: Tensor) -> None:
    for what, values in {"boxes": boxes, "scores": scores}.items():
        if not torch.isfinite(values).all():
            raise ContractError(
                f"{gave} gave {what} that are NaN or infinite: look for an exp that overflows "
                "(clamp it, as deployed decoders do) or weights that are no numbers"
            )
    beyond = scores[(scores < 0) | (scores > 1 + ROUNDING)]
    if len(beyond):
        raise ContractError(
            f"{gave} gave a score of {beyond[0]:.3g}, not in [0, 1]: return probabilities, logits "
            "through a sigmoid or softmax"
        )


def _expect_sides_in_place(gave: str, boxes: Tensor) -> None:
    wrong = (boxes[..., 2:] < boxes[..., :2]).any(-1)
    if wrong.any():
        left, top, right, bottom = boxes[wrong][0].tolist()
        raise ContractError(
            f"{gave} gave a box from ({left:.4g}, {top:.4g}) to ({right:.4g}, {bottom:.4g}): "
            "return left, top, right, bottom, not centres and sizes, and keep sizes from falling "
            "below 0"
        )


def _expect_names(gave: str, count: int, batch: int, classes: Any, groups: Any) -> None:
    shapes = {"classes": ((count,), (batch, count)), "groups": ((count,),)}
    for (what, allowed), part in zip(shapes.items(), (classes, groups), strict=True):
        if part is None:
            continue
        if _shape(part) not in allowed or (part < 0).any() or (part != part.round()).any():
            expected = " or ".join(("(N,)", "(B, N)")[: len(allowed)])
            raise ContractError(
                f"{gave} gave {what} {_shape(part)} beside {count} boxes in each of {batch} "
                f"images: return {expected}, whole numbers from 0"
            )


def _shape(part: Any) -> tuple[int, ...]:
    return tuple(part.shape) if isinstance(part, Tensor) else ()


def _leads(scores: Tensor) -> Tensor | None:
    """(B, N, classes) -> (B, N): of the best class over the second; None of one class."""
    if scores.shape[2] < 2:
        return None
    first, second = scores.detach().topk(2, dim=2).values.unbind(2)
    return first - second
