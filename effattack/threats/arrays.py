"""Threats on arrays of floats: an iterate moves along gradients, and is rounded at the end."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.domains import Arrays
from effattack.errors import NotApplicable
from effattack.threats.base import SLACK, Threat


class ArrayThreat(Threat):
    """A set of images (B, C, H, W) or series (B, C, L) around each clean one.

    The search moves a real-valued iterate inside the budget; what is scored and returned is
    ``on_grid`` of it: inside the budget and the range of the domain, on its grid.
    """

    kind: ClassVar[str] = "arrays"
    domain: Arrays

    @abstractmethod
    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One step of steepest ascent of length ``size`` (a fraction of the budget)."""

    @abstractmethod
    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """The nearest change inside the budget with lower <= change <= upper, lower <= 0 <= upper.

        All have the shape of the inputs, or broadcast to it.
        """

    def placed(self, clean: Tensor, generator: Generator) -> ArrayThreat:
        return self

    def rows(self, index: Tensor) -> ArrayThreat:
        return self

    @property
    def span(self) -> float:
        """From the lowest value of the domain to the highest."""
        return self.domain.high - self.domain.low

    @property
    def slack(self) -> float:
        """What float32 rounding may add to a value of the domain."""
        return SLACK * max(abs(self.domain.low), abs(self.domain.high))

    @property
    def per_unit(self) -> float:
        """Steps of the grid in a distance of 1."""
        assert self.domain.step is not None
        return 1 / self.domain.step

    @property
    def reach(self) -> float:
        """The largest change of one value."""
        return self.span

    def euclidean(self, clean: Tensor) -> float:
        return math.sqrt(clean[0].numel()) * self.span

    def window(self, clean: Tensor) -> tuple[list[Tensor], list[int]]:
        """Where values may change: of every axis the first index, (B,), and how many there are."""
        sizes = list(clean.shape[2:])
        return [torch.zeros(len(clean), dtype=torch.long) for _ in sizes], sizes

    def project(self, inputs: Tensor, clean: Tensor) -> Tensor:
        """The nearest inputs inside the budget and inside the range."""
        low, high = self.domain.low, self.domain.high
        return (clean + self.nearest(inputs - clean, low - clean, high - clean)).clamp(low, high)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return self.domain.snap(self.project(inputs, clean))

    def pattern(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """What a universal perturbation starts from: a change of K inputs, ``shape`` in all."""
        return torch.zeros(shape)

    def climb(self, pattern: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One step of steepest ascent of universal perturbations."""
        return self.ascend(pattern, gradient, size)

    def limit(self, pattern: Tensor) -> Tensor:
        """The nearest universal perturbations inside the budget."""
        whole = torch.full_like(pattern, self.span)
        return self.nearest(pattern, -whole, whole)

    def apply(self, pattern: Tensor, clean: Tensor) -> Tensor:
        """Clean inputs with one universal perturbation each, differentiable in it; not clipped."""
        return clean + pattern

    def changed(self, inputs: Tensor, clean: Tensor) -> Tensor:
        """(B, ...) bool: the pixels or times, of which any channel changed."""
        return ((inputs - clean).abs() > (self.domain.step or 0) / 2).any(1)

    def anything(self, shape: tuple[int, ...], generator: Generator, like: Tensor) -> Tensor:
        """Values drawn evenly from the range, in the precision of ``like``; on CPU."""
        noise = torch.rand(shape, generator=generator, dtype=like.dtype)
        return self.domain.low + self.span * noise

    def _flaw(self, inputs: Tensor, clean: Tensor) -> str | None:
        if inputs.shape != clean.shape:
            return f"shape {tuple(inputs.shape)}, not {tuple(clean.shape)}"
        return super()._flaw(inputs, clean)

    def _off_grid(self, inputs: Tensor) -> bool:
        return bool((inputs - self.domain.snap(inputs)).abs().max() > self.slack)


def on_arrays(threat: Threat) -> ArrayThreat:
    """A threat as searches along gradients need it.

    Raises:
        NotApplicable: if it is no set of arrays.
    """
    if not isinstance(threat, ArrayThreat):
        raise NotApplicable(f"{threat} has no steepest step: searches along gradients need one")
    return threat


def per_input(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> a shape that broadcasts over (B, C, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def unit(vectors: Tensor) -> Tensor:
    """(B, ...) scaled to Euclidean norm 1; zero stays zero."""
    largest = per_input(vectors.abs().flatten(1).amax(1), vectors)
    scaled = vectors / torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = per_input(scaled.flatten(1).norm(dim=1), scaled)
    return scaled / torch.where(norm > 0, norm, torch.ones_like(norm))
