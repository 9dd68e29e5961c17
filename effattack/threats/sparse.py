"""Few values, changed at will: a patch of an image, a window of a series, or any few pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from effattack.budgets import check_count
from effattack.errors import UsageError
from effattack.threats.arrays import ArrayThreat, per_input


class Region(ArrayThreat):
    """A stretch of equal length along every axis may hold any values; ``eps`` is the length.

    Args:
        size: length of the stretch.
        place: where it begins, an index of each axis; None: drawn per input, and per restart.

    Raises:
        UsageError: for a size or place that is none; for inputs that it does not fit on.
    """

    called: ClassVar[str]
    """What tables call it, without its place."""
    axes: ClassVar[int]
    """How many axes an input has behind the channels."""

    def __init__(self, size: int, place: Sequence[int] | None = None) -> None:
        self.eps = float(check_count(size, f"the size of a {self.called}"))
        if place is not None and not (
            len(place) == self.axes and all(isinstance(at, int) and at >= 0 for at in place)
        ):
            shown = ", ".join(["4"] * self.axes)
            raise UsageError(
                f"place = {place!r}: give the first index of each of {self.axes} axes, such as "
                f"({shown},)"
            )
        self.size = size
        self.place = None if place is None else tuple(int(at) for at in place)
        self._corners: list[Tensor] | None = None

    @classmethod
    def read(cls, size: str) -> Self:
        length, at, place = size.partition("@")
        return cls(int(length), tuple(int(part) for part in place.split(",")) if at else None)

    @property
    def name(self) -> str:  # type: ignore[override]
        """ "patch", or "patch@4,4" at a fixed place."""
        return self.called if self.place is None else f"{self.called}@{self._told()}"

    def euclidean(self, clean: Tensor) -> float:
        return math.sqrt(clean.shape[1] * self.size**self.axes) * self.span

    def placed(self, clean: Tensor, generator: Generator) -> Self:
        batch, _, *lengths = clean.shape
        self._check_fits(lengths)
        placed = copy.copy(self)
        if self.place is None:
            placed._corners = [
                torch.randint(0, length - self.size + 1, (batch,), generator=generator)
                for length in lengths
            ]
        else:
            placed._corners = [torch.full((batch,), at) for at in self.place]
        return placed

    def rows(self, index: Tensor) -> Self:
        chosen = copy.copy(self)
        chosen._corners = [corner[index.to(corner.device)] for corner in self._at()]
        return chosen

    def window(self, clean: Tensor) -> tuple[list[Tensor], list[int]]:
        return self._at(), [self.size] * self.axes

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = self.anything(clean.shape, generator, clean).to(clean.device)
        return torch.where(self._mask(clean), noise, clean)

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        return inputs + size * self.span * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        inside = torch.clamp(change, lower, upper)
        return torch.where(self._mask(change), inside, torch.zeros_like(inside))

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        changed = self.changed(inputs, clean)
        if self.place is not None:
            self._check_fits(clean.shape[2:])
            stretches = tuple(slice(at, at + self.size) for at in self.place)
            changed[(slice(None), *stretches)] = False
            return ~changed.flatten(1).any(1)
        lines = [
            changed.movedim(axis, 1).reshape(len(changed), length, -1).any(2)
            for axis, length in enumerate(changed.shape[1:], 1)
        ]
        return torch.stack([_extent(along) <= self.size for along in lines]).all(0)

    def pattern(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Random values of the region alone: (K, C, size, ...)."""
        region = (*shape[:2], *[self.size] * self.axes)
        return self.anything(region, generator, torch.empty(0))

    def limit(self, pattern: Tensor) -> Tensor:
        return pattern.clamp(self.domain.low, self.domain.high)

    def apply(self, pattern: Tensor, clean: Tensor) -> Tensor:
        mask = self._mask(clean).expand_as(clean)
        return clean.masked_scatter(mask, pattern.expand(len(clean), *pattern.shape[1:]))

    def __str__(self) -> str:
        return f"{self.called}:{self.size}" + ("" if self.place is None else f"@{self._told()}")

    def _told(self) -> str:
        return ",".join(map(str, self.place or ()))

    def unfit(self) -> str | None:
        """By the sizes that the domain tells; free ones show with the inputs."""
        return self._too_large(self.domain.shape[1:])

    def _too_large(self, lengths: Sequence[int | None]) -> str | None:
        ends = [at + self.size for at in self.place or (0,) * self.axes]
        if all(n is None or end <= n for end, n in zip(ends, lengths, strict=True)):
            return None
        return (
            f"{self} does not fit on {self.domain.nouns} of {' x '.join(map(str, lengths))}: "
            f"choose a smaller {self.called} or another place"
        )

    def _check_fits(self, lengths: Sequence[int]) -> None:
        if reason := self._too_large(lengths):
            raise UsageError(reason)

    def _at(self) -> list[Tensor]:
        if self._corners is None:
            raise UsageError(
                f"the {self.called} has no place yet: call threat.placed(clean, generator)"
            )
        return self._corners

    def _mask(self, like: Tensor) -> Tensor:
        """(B, 1, ...) bool: the region of each input."""
        inside = torch.ones((), dtype=torch.bool)
        for axis, (corner, length) in enumerate(zip(self._at(), like.shape[2:], strict=True)):
            index = torch.arange(length)
            on = (index >= corner[:, None]) & (index < corner[:, None] + self.size)
            shape = [len(corner)] + [1] * self.axes
            shape[1 + axis] = length
            inside = inside & on.view(shape)
        return inside[:, None].to(like.device)


class Patch(Region):
    """A square of the image may hold any pixels; ``eps`` is its side; see :class:`Region`."""

    kind, called, axes = "pixels", "patch", 2


class Window(Region):
    """A stretch of the series may hold any values; ``eps`` is its length; see :class:`Region`."""

    kind, called, axes = "series", "window", 1


class L0(ArrayThreat):
    """At most ``count`` pixels or times may change, to anything (l0); ``eps`` is the count.

    The step is along the gradient, scaled to a largest entry of ``size``; the projection keeps the
    pixels whose change, clipped to the range, brings the input nearest (PGD₀ of Croce and Hein,
    "Sparse and Imperceivable Adversarial Attacks", ICCV 2019).

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    name = "pixels"

    def __init__(self, count: int) -> None:
        self.eps = float(check_count(count, "the count of pixels"))
        self.count = count

    @classmethod
    def read(cls, size: str) -> Self:
        return cls(int(size))

    def euclidean(self, clean: Tensor) -> float:
        return math.sqrt(clean.shape[1] * self.count) * self.span

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        places = torch.rand(len(clean), 1, *clean.shape[2:], generator=generator)
        chosen = self._largest(places.flatten(1)).view_as(places).to(clean.device)
        noise = self.anything(clean.shape, generator, clean).to(clean.device)
        return torch.where(chosen, noise, clean)

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        largest = per_input(gradient.abs().flatten(1).amax(1), gradient)
        return inputs + size * self.span * gradient / torch.where(largest > 0, largest, 1.0)

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        clipped = torch.clamp(change, lower, upper)
        gain = (change.square() - (change - clipped).square()).sum(1)
        kept = self._largest(gain.flatten(1)).view_as(gain)[:, None]
        return torch.where(kept, clipped, torch.zeros_like(clipped))

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return self.changed(inputs, clean).flatten(1).sum(1) <= self.count

    def _largest(self, values: Tensor) -> Tensor:
        """(B, N) bool: the ``count`` largest of each row."""
        chosen = values.topk(min(self.count, values.shape[1]), dim=1).indices
        return torch.zeros_like(values, dtype=torch.bool).scatter(1, chosen, True)


def _extent(lines: Tensor) -> Tensor:
    """(B, N) bool -> (B,) how many lines lie from the first to the last that is set."""
    place = torch.arange(lines.shape[1], device=lines.device)
    last = torch.where(lines, place, -1).amax(1)
    first = torch.where(lines, place, lines.shape[1]).amin(1)
    return (last - first + 1).clamp_min(0)
