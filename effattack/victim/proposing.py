"""What a detector shows beside its gates: its proposals before any is dropped, for papers' losses.

The fields of :class:`Proposals` stand in ``Trace.aux`` by their names.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from effattack.victim.trace import Trace

UNNAMED = -1.0
"""The class of a box of which nobody has said yet what it holds."""


class Proposals(NamedTuple):
    """N boxes in each of B images, differentiable in the images through places and scores."""

    boxes: Tensor
    """(B, N, 4): left, top, right, bottom in pixels, within the image."""
    scores: Tensor
    """(B, N) in [0, 1]"""
    classes: Tensor
    """(B, N) floats: whole numbers from 0, or ``UNNAMED``."""
    threshold: Tensor
    """(B, 1): a box is handed on if its score is above it; 0 where all are."""
    sides: Tensor
    """(B, 2): width and height of the image in pixels."""

    @property
    def handed_on(self) -> Tensor:
        """(B, N) bool"""
        return self.scores > self.threshold

    @property
    def shares(self) -> Tensor:
        """(B, N): area of each box, as a share of that of its image."""
        widths, heights = (self.boxes[..., 2:] - self.boxes[..., :2]).unbind(-1)
        return widths * heights / self.sides.prod(1, keepdim=True)


def shows_proposals(trace: Trace) -> bool:
    """Whether a trace is that of a detector that shows them."""
    return trace.aux.keys() >= set(Proposals._fields)


def proposals_of(trace: Trace) -> Proposals:
    """What a detector proposed, as its trace shows it."""
    return Proposals(*(trace.aux[name] for name in Proposals._fields))
