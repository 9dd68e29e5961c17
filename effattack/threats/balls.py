"""Balls around the clean image in l-inf, l2 and l1, and the two trivial ones: all and nothing."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Generator, Tensor

from effattack.budgets import LEVELS, check_eps, check_norm, size_text
from effattack.errors import UsageError
from effattack.threats.base import SLACK, Threat, per_image, unit


class Linf(Threat):
    """Every pixel may change by at most ``eps``.

    Raises:
        UsageError: if eps is not a number in [1/255, 1]; below 1/255 the 8-bit grid leaves the
            attacker nothing.
    """

    name = "linf"

    def __init__(self, eps: float) -> None:
        self.eps = check_eps(eps)
        self._levels = math.floor(self.eps * LEVELS + 1e-6)

    @property
    def reach(self) -> float:
        return self.eps

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype) * 2 - 1
        return self.project(clean + self.eps * noise.to(clean.device), clean)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * self.eps * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.clamp(change.clamp(-self.eps, self.eps), lower, upper)

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        return torch.clamp(images, clean - self.eps, clean + self.eps).clamp(0, 1)

    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        centre = (clean * LEVELS).round()
        levels = (images * LEVELS).round()
        return levels.clamp(centre - self._levels, centre + self._levels).clamp(0, LEVELS) / LEVELS

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        return (images - clean).abs().flatten(1).amax(1) <= self.eps + SLACK

    def __str__(self) -> str:
        return f"linf:{size_text(self.name, self.eps)}"


class _NormBall(Threat):
    """What l2 and l1 share: exact projection on ball and box, and rounding that stays inside.

    Rounding moves every pixel towards the clean image first, then the pixels nearest to their
    outer level back out, while the ball has room.
    """

    def __init__(self, eps: float) -> None:
        self.eps = check_norm(eps)

    @property
    def reach(self) -> float:
        return min(1.0, self.eps)

    @abstractmethod
    def _spent(self, size: Tensor) -> Tensor:
        """What single changes of some size take of the budget."""

    @abstractmethod
    def _inside(self, size: Tensor, room: Tensor) -> Tensor:
        """(B, N) sizes of changes brought into the ball, none beyond its room."""

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = self._direction(clean.shape, generator)
        inward = torch.rand(len(clean), generator=generator) ** (1 / noise[0].numel())
        noise = noise * per_image(inward * self.eps, noise)
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

    def on_grid(self, images: Tensor, clean: Tensor) -> Tensor:
        centre = (clean * LEVELS).round()
        change = self.nearest(images - clean, -clean, 1 - clean) * LEVELS
        size = change.abs().flatten(1).double()
        near = size.round()
        lower = torch.where((size - near).abs() < 1e-3, near, size.floor())
        left = self._budget() * (1 + SLACK) - self._spent(lower / LEVELS).sum(1, keepdim=True)
        fraction = torch.where(near > lower, size - lower, torch.zeros_like(size))
        order = fraction.argsort(dim=1, descending=True, stable=True)
        price = self._spent((lower + 1) / LEVELS) - self._spent(lower / LEVELS)
        price = torch.where(fraction > 0, price, torch.full_like(price, torch.inf))
        affordable = price.gather(1, order).cumsum(1) <= left
        out = torch.zeros_like(affordable).scatter(1, order, affordable)
        levels = (lower + out).to(change).view_as(change).copysign(change)
        return (centre + levels).clamp(0, LEVELS) / LEVELS

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        levels = ((images - clean) * LEVELS).round().double()
        return self._spent(levels.abs().flatten(1) / LEVELS).sum(1) <= self._budget() * (
            1 + 2 * SLACK
        )

    def _budget(self) -> float:
        return float(self._spent(torch.tensor(self.eps, dtype=torch.float64)))


class L2(_NormBall):
    """The Euclidean norm of the change of an image is at most ``eps``, in [0, 1] pixels.

    The step is along the gradient. The projection on ball and box is exact: the change is scaled
    by one factor and clipped, and the factor solves ‖clip(t·v)‖ = ε.

    Raises:
        UsageError: if eps is not a finite number of at least 1/255.
    """

    name = "l2"

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * self.eps * unit(gradient)

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
        reached = clipped + turn.square() * free >= self.eps**2
        at = reached.byte().argmax(1, keepdim=True)
        factor = (self.eps**2 - clipped.gather(1, at)).clamp_min(0) / free.gather(1, at).clamp_min(
            1e-300
        )
        return (factor.sqrt() * size).minimum(room)


class L1(_NormBall):
    """The sum of the absolute changes of an image is at most ``eps``, in [0, 1] pixels.

    The step moves the ``share`` of values with the largest gradient that are not yet at the end of
    the pixel range, by equal amounts (the sparse step of Tramèr and Boneh, arXiv 1904.13000). The
    projection on ball and box is exact, after Croce and Hein, "Mind the box", ICML 2021
    (arXiv 2103.01208): sizes fall by one amount λ and are clipped, and λ solves Σ = ε.

    Args:
        eps: radius.
        share: of the values that one step moves.

    Raises:
        UsageError: if eps is not a finite number of at least 1/255, or share not in (0, 1].
    """

    name = "l1"

    def __init__(self, eps: float, share: float = 0.01) -> None:
        super().__init__(eps)
        if not 0 < share <= 1:
            raise UsageError(f"share = {share!r}: give a number in (0, 1], such as 0.01")
        self.share = share

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        stuck = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
        return self.climb(images, gradient.masked_fill(stuck, 0), size)

    def climb(self, pattern: Tensor, gradient: Tensor, size: float) -> Tensor:
        slope = gradient.flatten(1)
        count = math.ceil(self.share * slope.shape[1])
        steepest = slope.abs().topk(count, dim=1).indices
        step = torch.zeros_like(slope).scatter(1, steepest, slope.gather(1, steepest).sign())
        return pattern + size * self.eps / count * step.view_as(pattern)

    def _spent(self, size: Tensor) -> Tensor:
        return size

    def _direction(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        size = -torch.rand(shape, generator=generator).clamp_min(1e-12).log()
        size = size / per_image(size.flatten(1).sum(1), size)
        return size * (2 * torch.randint(0, 2, shape, generator=generator) - 1)

    def _inside(self, size: Tensor, room: Tensor) -> Tensor:
        # min(max(size - λ, 0), room) = max(size - λ, 0) - max(size - room - λ, 0): their sum is
        # linear in λ between the turns, which are taken from the largest down.
        ones = torch.ones_like(size)
        turns, weights = torch.cat([size, size - room], 1), torch.cat([ones, -ones], 1)
        turns, order = turns.sort(1, descending=True)
        weights = weights.gather(1, order)
        slope, height = weights.cumsum(1), (weights * turns).cumsum(1)
        at = (height - turns * slope >= self.eps).byte().argmax(1, keepdim=True)
        at = (at - 1).clamp_min(0)  # a row inside the ball already has no turn to find
        fall = (height.gather(1, at) - self.eps) / slope.gather(1, at)
        return (size - fall.clamp_min(0)).clamp_min(0).minimum(room)


class Box(Threat):
    """The pixel box alone: any image in [0, 1], near the clean one or not."""

    name = "box"

    def __init__(self) -> None:
        self.eps = 1.0

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        return torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.clamp(change, lower, upper)

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        return images.clamp(0, 1)

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)

    def __str__(self) -> str:
        return self.name


class Nothing(Threat):
    """The clean images alone."""

    name = "none"

    def __init__(self) -> None:
        self.eps = 0.0

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        return clean.clone()

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.zeros_like(change)

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        return (images - clean).abs().flatten(1).amax(1) <= SLACK

    def __str__(self) -> str:
        return self.name
