"""Losses of papers on detectors; see :mod:`effattack.attacks.published.detectors`.

Of N boxes of one image, s_i is the score, a_i the area as a share of that of the image, and T the
threshold of the victim, above which a box goes into non-maximum suppression.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.errors import NotApplicable
from effattack.tasks.boxes import overlaps
from effattack.victim import Trace, Victim
from effattack.victim.proposing import UNNAMED, Proposals, proposals_of, shows_proposals

LEAST = 0.001
"""Score from which Phantom Sponges lets a box stand for one that was there."""


class OfProposals(Objective):
    """An objective on the boxes that a detector proposes."""

    def check(self, trace: Trace, victim: Victim) -> None:
        if not shows_proposals(trace):
            raise NotApplicable(
                f"{victim.name} shows no boxes before non-maximum suppression: Daedalus, "
                "PhantomSponges, Overload and SlowTrack attack detectors that do"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return self.of_proposals(proposals_of(trace), goal)

    @abstractmethod
    def of_proposals(self, found: Proposals, goal: Goal) -> Tensor:
        """What is proposed in B images -> (B,)."""


@dataclass(frozen=True)
class SureAndSmall(OfProposals):
    """Daedalus' f₃, turned: − mean over i of (s_i − 1)² + a_i²."""

    def of_proposals(self, found: Proposals, goal: Goal) -> Tensor:
        return -((found.scores - 1).square() + found.shares.square()).mean(1)


@dataclass(frozen=True)
class ManySmallAndKept(OfProposals):
    """Phantom Sponges' loss, turned: − λ₁ · L_objects − λ₂ · L_area − (1 − λ₁) · L_IoU.

    L_objects is the mean over i of max(T − s_i, 0); L_area the mean of a_i over boxes above T, 0
    without any; L_IoU 1 − the mean, over the boxes found in the clean image, of the largest overlap
    with a box of the same class and a score above .001, 1 where none was found.

    Args:
        many: λ₁.
        small: λ₂.
    """

    many: float = 1.0
    small: float = 10.0

    def of_proposals(self, found: Proposals, goal: Goal) -> Tensor:
        objects = (found.threshold - found.scores).clamp_min(0).mean(1)
        area = (found.shares * found.handed_on).sum(1) / found.handed_on.sum(1).clamp_min(1)
        value = -self.many * objects - self.small * area
        return value if self.many == 1 else value - (1 - self.many) * (1 - kept(found, goal.answer))


def kept(found: Proposals, clean: Tensor) -> Tensor:
    """(B,): mean over the rows of answers (B, M, 6) of the largest overlap that still meets them,
    with boxes of a score above ``LEAST`` and of their class, or of none yet; 0 without rows."""
    shares = []
    for index, rows in enumerate(clean):
        rows = rows[rows[:, 4] >= 0]
        classes = found.classes[index, :, None]
        like = (classes == rows[None, :, 5]) | (classes == UNNAMED)
        like &= found.scores[index, :, None] > LEAST
        met = torch.where(like, overlaps(found.boxes[index], rows), 0).amax(0)
        shares.append(met.sum() / max(1, len(rows)))
    return torch.stack(shares).to(found.scores)


@dataclass(frozen=True)
class NotYetHandedOn(OfProposals):
    """Overload's loss: − Σ over i of (1 − s_i)², boxes above T counting as 1.

    A box above T counts with its objectness alone there, whatever its class; where scores are not
    told apart into objectness and class, it is done.
    """

    def of_proposals(self, found: Proposals, goal: Goal) -> Tensor:
        return -(1 - found.scores).square().masked_fill(found.handed_on, 0).sum(1)


@dataclass(frozen=True)
class TracksToBe(OfProposals):
    """SlowTrack's terms on one frame, turned: − Σ over i of sure · (s_i − 1)² + small · a_i.

    Args:
        sure: weight of the scores; 10 of the stripe of a frame, and 1 of all of it.
        small: of the areas.
    """

    sure: float = 11.0
    small: float = 100.0

    def of_proposals(self, found: Proposals, goal: Goal) -> Tensor:
        return -(self.sure * (found.scores - 1).square() + self.small * found.shares).sum(1)
