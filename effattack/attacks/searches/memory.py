"""What a search remembers of the gradients so far: a heading, or the moments of Adam."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
"""What Kingma and Ba advise."""
TINY = 1e-8


class Memory(Protocol):
    """What a run remembers of the gradients of its inputs."""

    def after(self, gradient: Tensor) -> Memory:
        """The same after one gradient more."""

    def direction(self) -> Tensor:
        """Where to go, upwards."""

    def rows(self, index: Tensor) -> Memory:
        """The same of some inputs."""


class Heading(NamedTuple):
    """A direction, of which ``kept`` stays when a gradient is added."""

    along: Tensor
    kept: float

    def after(self, gradient: Tensor) -> Heading:
        if not self.kept:
            return self._replace(along=gradient)
        size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        scaled = gradient / size.view(-1, *[1] * (gradient.dim() - 1))
        return self._replace(along=self.kept * self.along + scaled)

    def direction(self) -> Tensor:
        return self.along

    def rows(self, index: Tensor) -> Heading:
        return self._replace(along=self.along[index])


class Moments(NamedTuple):
    """First and second moment of the gradients so far, and how many there were.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015 (arXiv 1412.6980),
    algorithm 1.
    """

    first: Tensor
    second: Tensor
    seen: int
    betas: tuple[float, float]
    """How much of either is kept."""

    @classmethod
    def none(cls, like: Tensor, betas: tuple[float, float] = BETAS) -> Self:
        """Before any gradient of that shape."""
        return cls(torch.zeros_like(like), torch.zeros_like(like), 0, betas)

    def after(self, gradient: Tensor) -> Moments:
        slow, slower = self.betas
        first = slow * self.first + (1 - slow) * gradient
        second = slower * self.second + (1 - slower) * gradient.square()
        return self._replace(first=first, second=second, seen=self.seen + 1)

    def direction(self) -> Tensor:
        """Per element about 1 where gradients agree, about 0 where they do not."""
        slow, slower = self.betas
        mean = self.first / (1 - slow**self.seen)
        square = self.second / (1 - slower**self.seen)
        return mean / (square.sqrt() + TINY)

    def rows(self, index: Tensor) -> Moments:
        return self._replace(first=self.first[index], second=self.second[index])
