"""What an attacker may change: where to look, and how far.

A threat knows its budget in [0, 1] pixels. The search moves a real-valued iterate inside the
budget; what is scored and returned is ``on_grid`` of it: inside the budget, inside [0, 1], and on
the 8-bit grid, because a deployed model is fed 8-bit images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from effattack.budgets import LEVELS, check_eps


class Threat(ABC):
    """A set of images around each clean image. ``eps`` is its size, in [0, 1] pixels."""

    eps: float

    @abstractmethod
    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        """A random point of the budget around each clean image, uniform where that makes sense."""

    @abstractmethod
    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One step of steepest ascent of length ``size`` (a fraction of the budget)."""

    @abstractmethod
    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """The nearest images inside the budget and inside [0, 1]."""

    @abstractmethod
    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        """Images of the budget on the 8-bit grid, near the given ones; ``clean`` is on it."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({settings})"


class Linf(Threat):
    """Every pixel may change by at most ``eps``.

    Raises:
        UsageError: if eps is not a number in [1/255, 1]; below 1/255 the 8-bit grid leaves the
            attacker nothing.
    """

    def __init__(self, eps: float) -> None:
        self.eps = check_eps(eps)
        self._levels = math.floor(self.eps * LEVELS + 1e-6)

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype) * 2 - 1
        return self.project(clean + self.eps * noise.to(clean.device), clean)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * self.eps * gradient.sign()

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        return torch.clamp(images, clean - self.eps, clean + self.eps).clamp(0, 1)

    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        centre = (clean * LEVELS).round()
        levels = (images * LEVELS).round()
        return levels.clamp(centre - self._levels, centre + self._levels).clamp(0, LEVELS) / LEVELS


class Box(Threat):
    """The pixel box alone: any image in [0, 1], near the clean one or not."""

    def __init__(self) -> None:
        self.eps = 1.0

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        return torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * gradient.sign()

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        return images.clamp(0, 1)

    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        return (images * LEVELS).round().clamp(0, LEVELS) / LEVELS
