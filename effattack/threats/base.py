"""What every threat is: a set of images around each clean one, and how a search moves in it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from effattack.budgets import LEVELS
from effattack.domains.pixels import to_grid
from effattack.errors import MeasurementError

SLACK = 1e-6
"""What float32 rounding may add to a distance, relative to the budget."""


class Threat(ABC):
    """A set of images around each clean image.

    ``name`` is what tables call it; ``eps`` is its size in its own unit: a distance in [0, 1]
    pixels for balls, the side of a patch or a number of pixels. ``str()`` of it is the text that
    :func:`effattack.threats.parse_threat` reads.
    """

    name: str
    eps: float

    @abstractmethod
    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        """A random point of the budget around each clean image, uniform where that makes sense."""

    @abstractmethod
    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One step of steepest ascent of length ``size`` (a fraction of the budget)."""

    @abstractmethod
    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The nearest change inside the budget with lower <= change <= upper, lower <= 0 <= upper.

        All are (B, C, H, W), or broadcast to it.
        """

    @abstractmethod
    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        """(B,) bool: whether images on the 8-bit grid are inside the budget."""

    def placed(self, clean: Tensor, generator: Generator) -> Threat:
        """This threat with all that is drawn once per image (the place of a patch) drawn."""
        return self

    def rows(self, index: Tensor) -> Threat:
        """A placed threat for some of its images."""
        return self

    def window(self, clean: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """Where pixels may change: top and left edge, (B,) each, height and width."""
        edge = torch.zeros(len(clean), dtype=torch.long)
        return edge, edge, clean.shape[-2], clean.shape[-1]

    @property
    def reach(self) -> float:
        """The largest change of one pixel, in [0, 1] pixels."""
        return 1.0

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """The nearest images inside the budget and inside [0, 1]."""
        return (clean + self.nearest(images - clean, -clean, 1 - clean)).clamp(0, 1)

    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        """Images of the budget on the 8-bit grid, near the given ones; ``clean`` is on it."""
        return to_grid(self.project(images, clean))

    def pattern(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """What a universal perturbation starts from: a change of (K, C, H, W) images."""
        return torch.zeros(shape)

    def climb(self, pattern: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One step of steepest ascent of universal perturbations."""
        return self.ascend(pattern, gradient, size)

    def limit(self, pattern: Tensor) -> Tensor:
        """The nearest universal perturbations inside the budget."""
        return self.nearest(pattern, torch.full_like(pattern, -1), torch.ones_like(pattern))

    def apply(self, pattern: Tensor, clean: Tensor) -> Tensor:
        """Clean images with one universal perturbation each, differentiable in it; not clipped."""
        return clean + pattern

    def check(self, images: Tensor, clean: Tensor) -> None:
        """Refuse what is no image of the budget: every score rests on it.

        Raises:
            MeasurementError: naming what is wrong.
        """
        wrong = None
        if images.shape != clean.shape or not torch.isfinite(images).all():
            wrong = f"shape {tuple(images.shape)}, or NaN"
        elif images.min() < 0 or images.max() > 1 or (images - to_grid(images)).abs().max() > SLACK:
            wrong = "pixels outside [0, 1] or off the 8-bit grid"
        elif not self.contains(images, clean).all():
            wrong = f"changes of up to {(images - clean).abs().max() * LEVELS:.3g}/255 are too much"
        if wrong:
            raise MeasurementError(
                f"images outside the budget {self} ({wrong}): end run() with "
                "threat.on_grid(images, clean)"
            )

    def __str__(self) -> str:
        return f"{self.name}:{self.eps:g}"

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({settings})"


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> a shape that broadcasts over (B, C, H, W)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def unit(vectors: Tensor) -> Tensor:
    """(B, ...) scaled to Euclidean norm 1; zero stays zero."""
    largest = per_image(vectors.abs().flatten(1).amax(1), vectors)
    scaled = vectors / torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = per_image(scaled.flatten(1).norm(dim=1), scaled)
    return scaled / torch.where(norm > 0, norm, torch.ones_like(norm))
