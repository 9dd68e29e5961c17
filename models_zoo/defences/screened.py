"""Feature squeezing as a detector of images that ask for work: flagged ones are not handed on.

Xu, Evans and Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
NDSS 2018 (arXiv 1704.01155): an image is flagged where the answers to it and to its squeezed copies
lie too far apart. There it protects answers; here, a cascade's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.counting.outside import outside
from effattack.errors import UsageError
from effattack.models_zoo.cascade.cascade import TinySaver
from effattack.models_zoo.exits import chain_trace
from effattack.victim import Trace, Victim
from effattack.victim.around import declared
from effattack.victim.entry.steps import Step
from effattack.victim.margins import bounded
from effattack.victim.undisturbed import undisturbed


class Look(NamedTuple):
    """What the saver says of some images."""

    logits: Tensor
    """(B, classes), of the images as they are."""
    unsure: Tensor
    """(B,), the saver's margin of handing on."""
    calm: Tensor
    """(B,), margin of not being flagged; its sign decides."""


class Screened(Victim):
    """A cascade of two that hands on what its saver is unsure about, unless it is flagged.

    The saver looks at the image and at each squeezed copy; flagged is what moves its softmax
    farther than the limit, in l1, under any of them (the paper's joint detector). The saver's
    answer to a flagged image stands. That takes one run of the saver per squeezer, on every image.
    One gate: unsure and not flagged, the smaller of both margins.

    Args:
        victim: the cascade.
        squeezers: such as ``[bits(4), median(3)]``; none that draws.
        limit: of the distance, in [0, 2]; see :func:`screening_limit`.
        name: by default the cascade's, and the squeezers.

    Raises:
        UsageError: without squeezers, for one that draws, or a limit out of range.
    """

    def __init__(
        self, victim: TinySaver, squeezers: Sequence[Step], limit: float, *, name: str | None = None
    ) -> None:
        if not 0 <= limit <= 2:
            raise UsageError(f"limit = {limit}: an l1 distance of two answers lies in [0, 2]")
        saver, all_models = expect_squeezers(victim, squeezers)
        looks = 1 + len(squeezers)
        spent = [looks * saver, (looks - 1) * saver + all_models]
        called = name or f"{victim.name} screened by {', '.join(map(str, squeezers))}"
        super().__init__(**declared(victim, name=called, max_macs=spent[-1]))
        self.victim, self.squeezers, self.limit = victim, tuple(squeezers), limit
        self._spent = spent
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        seen = self.look(images)
        here = torch.minimum(seen.unsure, seen.calm).gt(0).nonzero()[:, 0]
        if not len(here):
            return seen.logits
        return seen.logits.index_copy(0, here, self.victim.models[1](images[here]))

    def trace(self, images: Tensor) -> Trace:
        seen = self.look(images)
        return chain_trace(
            torch.stack([seen.logits, self.victim.models[1](images.clone())], dim=1),
            margins=[torch.minimum(seen.unsure, seen.calm)],
            names=["saver"],
            cumulative_macs=self._spent,
        )

    def look(self, images: Tensor) -> Look:
        """The saver's view of images (B, C, H, W), squeezed and not."""
        logits = self.victim.models[0](images.clone())
        distance = squeezed_distance(self.victim, self.squeezers, images, logits)
        unsure = self.victim.criterion.margin(logits[:, None])
        return Look(logits, unsure, bounded(self.limit - distance, 1.0))

    def flagged(self, images: Tensor) -> Tensor:
        """(B,) bool: which images the detector flags."""
        with undisturbed(self), torch.no_grad():
            return self.look(images).calm <= 0


def squeezed_distance(
    victim: TinySaver, squeezers: Sequence[Step], images: Tensor, logits: Tensor
) -> Tensor:
    """(B,) in [0, 2]: largest l1 distance of the saver's softmax, squeezed from not squeezed.

    Args:
        victim: whose saver looks.
        squeezers: each leaves another copy.
        images: (B, C, H, W) in [0, 1].
        logits: (B, classes), the saver's of the images as they are.
    """
    said = logits.softmax(1)
    found = []
    for squeezer in squeezers:
        with outside("codec"):
            copies = torch.cat([squeezer(image, "") for image in images.split(1)])
        found.append((victim.models[0](copies).softmax(1) - said).abs().sum(1))
    return torch.stack(found).amax(0)


def screening_limit(
    victim: TinySaver, squeezers: Sequence[Step], images: Tensor, flagged: float = 0.05
) -> float:
    """The limit at which that share of clean held-out images is flagged; the paper's is 5 %.

    Args:
        victim: the cascade, unscreened.
        squeezers: of the detector.
        images: (B, C, H, W) in [0, 1], none of which will be scored.
        flagged: share in [0, 1].

    Raises:
        UsageError: without squeezers, for one that draws, or a share out of range.
    """
    if not 0 <= flagged <= 1:
        raise UsageError(f"flagged = {flagged}: give the share of clean images, in [0, 1]")
    expect_squeezers(victim, squeezers)
    with undisturbed(victim), torch.no_grad():
        distance = squeezed_distance(victim, squeezers, images, victim.models[0](images.clone()))
    return distance.double().quantile(1 - flagged).item()


def expect_squeezers(victim: TinySaver, squeezers: Sequence[Step]) -> tuple[float, float]:
    """MACs of the saver, and of saver and base, of a cascade that can be screened.

    Raises:
        UsageError: for a victim that is no cascade of two, no squeezers, or one that draws.
    """
    if not isinstance(victim, TinySaver):
        raise UsageError(f"{victim!r} is no TinySaver: the detector looks through a saver's eyes")
    if not squeezers or any(step.draws for step in squeezers):
        raise UsageError(
            f"squeezers = {[*map(str, squeezers)]}: give one or more that do not draw, such as "
            "[bits(4), median(3)]"
        )
    saver = victim.max_macs - victim.dense_macs
    return saver, victim.max_macs
