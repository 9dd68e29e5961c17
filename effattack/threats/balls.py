"""Balls around the clean input in l-inf, l2 and l1."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import Self

import torch
from torch import Generator, Tensor

from effattack.budgets import check_eps, exact, parse_number, size_text
from effattack.errors import UsageError
from effattack.threats.arrays import ArrayThreat, per_input, unit
from effattack.threats.base import SLACK


class Ball(ArrayThreat):
    """All changes of at most some norm.

    Args:
        eps: radius, in the unit of the values, or of ``unit``.
        unit: ``"sd"``: in standard deviations of the training data, as the domain declares them.

    Raises:
        UsageError: if eps is not a positive finite number; once bound to a domain, if it is less
            than one step of its grid, or in deviations where none is declared.
    """

    norm: str
    """What tables call it, without the unit."""

    def __init__(self, eps: float, *, unit: str = "") -> None:
        if unit not in ("", "sd"):
            raise UsageError(f"unit = {unit!r}: give 'sd' for deviations of the training data")
        self.eps, self.unit = check_eps(eps), unit

    @classmethod
    def read(cls, size: str) -> Self:
        number = size.removesuffix("sd")
        return cls(
            parse_number(number, f"the size in '{cls.norm}:{size}'"),
            unit="sd" if number != size else "",
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        """ "linf", or "linf@sd" in units of the deviation."""
        return f"{self.norm}@{self.unit}" if self.unit else self.norm

    @property
    def radius(self) -> float:
        """In the unit of the values."""
        return self.eps * (self.domain.deviation or math.nan) if self.unit else self.eps

    @property
    def reach(self) -> float:
        return min(self.span, self.radius)

    @property
    def least(self) -> float:
        """The smallest radius in which any value can change."""
        return 4 * self.slack if self.domain.step is None else self.domain.step

    @property
    def moves(self) -> bool:
        """Whether any value can change."""
        return self.radius >= self.least * (1 - 1e-6)

    def unfit(self) -> str | None:
        if self.unit and self.domain.deviation is None:
            return (
                f"{self}: {self.domain.nouns} have no declared deviation: give the domain the "
                f"deviation= of the training data, or an absolute size, such as {self.norm}:.1"
            )
        if not self.moves:
            told = size_text("linf", self.least)
            return (
                f"eps = {self.radius:.3g} is less than one step of {self.domain.nouns} ({told}): "
                f"no value can change; use eps >= {told}"
            )
        return None

    def resized(self, eps: float) -> Self:
        """The same ball with another radius."""
        other = copy.copy(self)
        other.eps = check_eps(eps)
        return other

    def __str__(self) -> str:
        size = size_text(self.name, self.eps)
        told = size if "/" in size else f"{exact(self.eps)}{self.unit}"
        return f"{self.norm}:{told}"


class Linf(Ball):
    """Every value may change by at most ``eps``; see :class:`Ball`."""

    norm = "linf"

    @property
    def reach(self) -> float:
        return self.radius

    def unfit(self) -> str | None:
        if self.radius > self.span * (1 + 1e-6):
            return (
                f"eps = {self.radius:.4g} is no budget: give a number in (0, {self.span:g}], the "
                f"range of {self.domain.nouns}, such as {size_text('linf', self.span * 8 / 255)}"
            )
        return super().unfit()

    def euclidean(self, clean: Tensor) -> float:
        longest = math.sqrt(clean[0].numel()) * (self.radius + self.slack)
        return min(longest, super().euclidean(clean))

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype) * 2 - 1
        return self.project(clean + self.radius * noise.to(clean.device), clean)

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        return inputs + size * self.radius * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.clamp(change.clamp(-self.radius, self.radius), lower, upper)

    def project(self, inputs: Tensor, clean: Tensor) -> Tensor:
        inside = torch.clamp(inputs, clean - self.radius, clean + self.radius)
        return inside.clamp(self.domain.low, self.domain.high)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        if self.domain.step is None:
            return self.project(inputs, clean)
        most = math.floor(self.radius * self.per_unit + 1e-6)
        centre = self.domain.levels(clean).int()
        levels = self.domain.levels(inputs.clamp(self.domain.low, self.domain.high)).int()
        return self.domain.values(levels.clamp(centre - most, centre + most), inputs)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return (inputs - clean).abs().flatten(1).amax(1) <= self.radius + self.slack


class _NormBall(Ball):
    """What l2 and l1 share: exact projection on ball and box, and rounding that stays inside.

    Rounding moves every value towards the clean input first, then the values nearest to their
    outer level back out, while the ball has room.
    """

    @abstractmethod
    def _spent(self, size: Tensor) -> Tensor:
        """What single changes of some size take of the budget."""

    @abstractmethod
    def _inside(self, size: Tensor, room: Tensor) -> Tensor:
        """(B, N) sizes of changes brought into the ball, none beyond its room."""

    def euclidean(self, clean: Tensor) -> float:
        rounding = math.sqrt(clean[0].numel()) * self.slack * (self.domain.step is None)
        longest = self.radius * (1 + 2 * SLACK) + rounding
        return min(longest, super().euclidean(clean))

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = self._direction(clean.shape, generator)
        inward = torch.rand(len(clean), generator=generator) ** (1 / noise[0].numel())
        noise = noise * per_input(inward * self.radius, noise)
        return self.project(clean + noise.to(clean), clean)

    @abstractmethod
    def _direction(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Points spread uniformly over the surface of the unit ball."""

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        size = change.abs().flatten(1)
        room = torch.where(change > 0, upper, -lower).flatten(1)
        clipped = size.minimum(room)
        within = self._spent(clipped.double()).sum(1) <= self._budget() * (1 + SLACK)
        if not bool(within.all()):
            inner = self._inside(size.double(), room.double()).to(change)
            clipped = torch.where(within[:, None], clipped, inner)
        return clipped.view_as(change).copysign(change)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        if self.domain.step is None:
            return self.project(inputs, clean)
        low, high, per_unit = self.domain.low, self.domain.high, self.per_unit
        change = self.nearest(inputs - clean, low - clean, high - clean) * per_unit
        size = change.abs().flatten(1).double()
        near = size.round()
        lower = torch.where((size - near).abs() < 1e-3, near, size.floor())
        left = self._budget() * (1 + SLACK) - self._spent(lower / per_unit).sum(1, keepdim=True)
        fraction = torch.where(near > lower, size - lower, torch.zeros_like(size))
        order = fraction.argsort(dim=1, descending=True, stable=True)
        price = self._spent((lower + 1) / per_unit) - self._spent(lower / per_unit)
        price = torch.where(fraction > 0, price, torch.full_like(price, torch.inf))
        affordable = price.gather(1, order).cumsum(1) <= left
        out = torch.zeros_like(affordable).scatter(1, order, affordable)
        steps = (lower + out).to(change).view_as(change).copysign(change)
        return self.domain.values(self.domain.levels(clean).int() + steps.int(), inputs)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        size = (inputs - clean).abs().flatten(1)
        if self.domain.step is None:
            size = (size - self.slack).clamp_min(0).double()
        else:
            size = (size * self.per_unit).round().double() / self.per_unit
        return self._spent(size).sum(1) <= self._budget() * (1 + 2 * SLACK)

    def _budget(self) -> float:
        return float(self._spent(torch.tensor(self.radius, dtype=torch.float64)))


class L2(_NormBall):
    """The Euclidean norm of the change of an input is at most ``eps``; see :class:`Ball`.

    The step is along the gradient. The projection on ball and box is exact: the change is scaled
    by one factor and clipped, and the factor solves ‖clip(t·v)‖ = ε.
    """

    norm = "l2"

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        return inputs + size * self.radius * unit(gradient)

    def _spent(self, size: Tensor) -> Tensor:
        return size.square()

    def _direction(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return unit(torch.randn(shape, generator=generator))

    def _inside(self, size: Tensor, room: Tensor) -> Tensor:
        # Clipping sets in at the factor room / size. Between two such factors, taken in order,
        # Σ min(t·size, room)² = clipped + t² · free.
        turn, order = (room / size.clamp_min(1e-300)).sort(1)
        squares, full = (x.gather(1, order).square() for x in (size, room))
        clipped = full.cumsum(1) - full
        free = squares.flip(1).cumsum(1).flip(1)
        reached = clipped + turn.square() * free >= self.radius**2
        at = reached.byte().argmax(1, keepdim=True)
        left = (self.radius**2 - clipped.gather(1, at)).clamp_min(0)
        factor = left / free.gather(1, at).clamp_min(1e-300)
        return (factor.sqrt() * size).minimum(room)


class L1(_NormBall):
    """The sum of the absolute changes of an input is at most ``eps``; see :class:`Ball`.

    The step moves the ``share`` of values with the largest gradient that are not yet at the end of
    the range, by equal amounts (the sparse step of Tramèr and Boneh, arXiv 1904.13000). The
    projection on ball and box is exact, after Croce and Hein, "Mind the box", ICML 2021
    (arXiv 2103.01208): sizes fall by one amount λ and are clipped, and λ solves Σ = ε.

    Args:
        eps: radius.
        share: of the values that one step moves.
        unit: of the radius.

    Raises:
        UsageError: as every ball, or for a share outside (0, 1].
    """

    norm = "l1"

    def __init__(self, eps: float, share: float = 0.01, *, unit: str = "") -> None:
        super().__init__(eps, unit=unit)
        if not 0 < share <= 1:
            raise UsageError(f"share = {share!r}: give a number in (0, 1], such as 0.01")
        self.share = share

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        at_low, at_high = inputs <= self.domain.low, inputs >= self.domain.high
        stuck = (at_low & (gradient < 0)) | (at_high & (gradient > 0))
        return self.climb(inputs, gradient.masked_fill(stuck, 0), size)

    def climb(self, pattern: Tensor, gradient: Tensor, size: float) -> Tensor:
        slope = gradient.flatten(1)
        count = math.ceil(self.share * slope.shape[1])
        steepest = slope.abs().topk(count, dim=1).indices
        step = torch.zeros_like(slope).scatter(1, steepest, slope.gather(1, steepest).sign())
        return pattern + size * self.radius / count * step.view_as(pattern)

    def _spent(self, size: Tensor) -> Tensor:
        return size

    def _direction(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        size = -torch.rand(shape, generator=generator).clamp_min(1e-12).log()
        size = size / per_input(size.flatten(1).sum(1), size)
        return size * (2 * torch.randint(0, 2, shape, generator=generator) - 1)

    def _inside(self, size: Tensor, room: Tensor) -> Tensor:
        # min(max(size - λ, 0), room) = max(size - λ, 0) - max(size - room - λ, 0): their sum is
        # linear in λ between the turns, which are taken from the largest down.
        ones = torch.ones_like(size)
        turns, weights = torch.cat([size, size - room], 1), torch.cat([ones, -ones], 1)
        turns, order = turns.sort(1, descending=True)
        weights = weights.gather(1, order)
        slope, height = weights.cumsum(1), (weights * turns).cumsum(1)
        at = (height - turns * slope >= self.radius).byte().argmax(1, keepdim=True)
        at = (at - 1).clamp_min(0)  # a row inside the ball already has no turn to find
        fall = (height.gather(1, at) - self.radius) / slope.gather(1, at)
        return (size - fall.clamp_min(0)).clamp_min(0).minimum(room)
