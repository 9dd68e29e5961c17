"""Natural shift, with no attacker: does an unlucky input cost more, too?

Noise, blur, brightness and JPEG are those of Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019 (arXiv 1903.12261). Style (another
ground) and size (things farther away) are ours, and the same for images of every size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.functional import gaussian_blur

from effattack.attacks.controls import WithoutBudget
from effattack.attacks.objectives import Goal
from effattack.budgets import LEVELS
from effattack.domains.pixels import to_grid
from effattack.errors import NotApplicable, UsageError, unknown_name
from effattack.tasks import Boxes, Matches
from effattack.threats import Box, Threat
from effattack.victim import Victim
from effattack.victim.entry.codecs import each, round_trip

SMALL = 64
"""Sides below which the strengths are those of CIFAR-10-C, else those of ImageNet-C."""
STRENGTHS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": ((0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "style": ((0.1, 0.2, 0.3, 0.4, 0.5),) * 2,
    "size": ((0.95, 0.9, 0.85, 0.8, 0.7),) * 2,
}
"""Of severities 1 to 5: standard deviation in [0, 1] pixels; in pixels' widths; added to the value
of HSV; quality of JPEG; how much lighter and darker a woven ground makes a pixel; what is left of
the size of things. Each for small images, and for others."""
THREADS = 8
"""Pixels from one thread of a woven ground to the next."""


class Corruption(WithoutBudget):
    """A natural shift of images: noise, blur, brightness, JPEG, style, size, at five strengths.

    A control. ``corruption(kind='jpeg', severity=5)`` on the command line. It keeps to no budget:
    its threat is the whole pixel box. JPEG is made by Pillow, whose versions may differ in a grey
    level. Style weaves threads into the image, each pixel times a factor about 1; size looks at it
    from farther away, and what comes into view is its mirror image.

    Args:
        victim: any victim.
        kind: "noise" (Gaussian), "blur" (Gaussian), "brightness", "jpeg", "style" or "size".
        severity: 1 to 5.
        seed: of the noise.

    Raises:
        UsageError: for an unknown kind or severity.
        NotApplicable: for JPEG on images that have neither 1 nor 3 channels, and for another size
            of things where answers say where they are.
    """

    takes, label = "pixels", "corruption"

    def __init__(
        self, victim: Victim, *, kind: str = "noise", severity: int = 3, seed: int = 0
    ) -> None:
        super().__init__(victim, seed=seed)
        if kind not in STRENGTHS:
            raise unknown_name("corruption", kind, STRENGTHS)
        if severity not in range(1, 6):
            raise UsageError(f"severity = {severity!r}: give a whole number from 1 to 5")
        channels, *_, width = victim.domain.shape
        if kind == "jpeg" and channels not in (1, 3):
            raise NotApplicable(
                f"JPEG needs images of 1 or 3 channels; {victim.name} takes {victim.domain.shape}: "
                "noise, blur and brightness apply"
            )
        if kind == "size" and isinstance(victim.task, Boxes | Matches):
            raise NotApplicable(
                f"{victim.name} says where things are, and those of another size are elsewhere "
                "than in its labels: draw the images anew, with their own labels; style applies"
            )
        self.settings = {"kind": kind, "severity": severity}
        self.corrupted = _CORRUPTIONS[kind]
        small, large = STRENGTHS[kind]
        self.strength = (small if width is not None and width < SMALL else large)[severity - 1]

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return to_grid(self.corrupted(clean, self.strength, generator).clamp(0, 1))


def _noise(clean: Tensor, deviation: float, generator: Generator) -> Tensor:
    return clean + deviation * torch.randn(clean.shape, generator=generator).to(clean)


def _blur(clean: Tensor, deviation: float, generator: Generator) -> Tensor:
    side = min(clean.shape[-2:])
    reach = min(int(4 * deviation + 0.5), side - 1)  # what is mirrored must be in the image
    return gaussian_blur(clean, [2 * reach + 1] * 2, [deviation] * 2)


def _brightness(clean: Tensor, added: float, generator: Generator) -> Tensor:
    """Hue and saturation stay: all channels grow by the factor of the largest one."""
    value = clean.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, clean * brighter / value.clamp_min(1 / LEVELS), brighter)


def _jpeg(clean: Tensor, quality: float, generator: Generator) -> Tensor:
    return each(clean, lambda image: round_trip(image, "JPEG", int(quality)))


def _style(clean: Tensor, depth: float, generator: Generator) -> Tensor:
    """Threads across and down, light above dark gaps: a factor in [1 - depth, 1 + depth]."""
    across, down = (
        torch.cos(2 * torch.pi * torch.arange(side) / THREADS).to(clean)
        for side in reversed(clean.shape[-2:])
    )
    return clean * (1 + depth * torch.maximum(down[:, None], across))


def _size(clean: Tensor, left: float, generator: Generator) -> Tensor:
    """Bilinear, about the middle of the image."""
    down, across = (
        ((torch.arange(side) * 2 + 1) / side - 1).to(clean) / left for side in clean.shape[-2:]
    )
    seen = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)
    seen = seen.expand(len(clean), -1, -1, -1)
    return grid_sample(clean, seen, padding_mode="reflection", align_corners=False)


_CORRUPTIONS: dict[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "jpeg": _jpeg,
    "style": _style,
    "size": _size,
}
