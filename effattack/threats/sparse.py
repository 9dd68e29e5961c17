"""Few pixels, changed at will: a square patch, or a number of pixels anywhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from effattack.budgets import check_count
from effattack.errors import UsageError
from effattack.threats.base import SLACK, Threat, per_image


class Patch(Threat):
    """A square of the image may hold any pixels; ``eps`` is its side.

    Args:
        size: side of the square, in pixels.
        place: (row, column) of its top left corner; None: drawn per image, and per restart.

    Raises:
        UsageError: for a size or place that is none; for images that it does not fit on.
    """

    def __init__(self, size: int, place: Sequence[int] | None = None) -> None:
        self.eps = float(check_count(size, "the size of a patch"))
        if place is not None and (
            len(place) != 2 or not all(isinstance(edge, int) and edge >= 0 for edge in place)
        ):
            raise UsageError(
                f"place = {place!r}: give row and column of the corner, such as (4, 4)"
            )
        self.size = size
        self.place = None if place is None else (int(place[0]), int(place[1]))
        self._corners: tuple[Tensor, Tensor] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """ "patch", or "patch@4,4" at a fixed place."""
        return "patch" if self.place is None else f"patch@{self.place[0]},{self.place[1]}"

    def placed(self, clean: Tensor, generator: Generator) -> Patch:
        batch, _, height, width = clean.shape
        self._check_fits(height, width)
        placed = copy.copy(self)
        if self.place is None:
            top = torch.randint(0, height - self.size + 1, (batch,), generator=generator)
            left = torch.randint(0, width - self.size + 1, (batch,), generator=generator)
        else:
            top, left = (torch.full((batch,), edge) for edge in self.place)
        placed._corners = top, left
        return placed

    def rows(self, index: Tensor) -> Patch:
        chosen = copy.copy(self)
        top, left = self._at()
        chosen._corners = top[index.to(top.device)], left[index.to(left.device)]
        return chosen

    def window(self, clean: Tensor) -> tuple[Tensor, Tensor, int, int]:
        return *self._at(), self.size, self.size

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        return torch.where(self._mask(clean), noise, clean)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        return images + size * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        inside = torch.clamp(change, lower, upper)
        return torch.where(self._mask(change), inside, torch.zeros_like(inside))

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        changed = ((images - clean).abs() > SLACK).any(1)
        if self.place is not None:
            self._check_fits(*clean.shape[-2:])
            row, column = self.place
            changed[:, row : row + self.size, column : column + self.size] = False
            return ~changed.flatten(1).any(1)
        return (_extent(changed.any(2)) <= self.size) & (_extent(changed.any(1)) <= self.size)

    def pattern(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Random pixels of the patch alone: (K, C, size, size)."""
        return torch.rand(*shape[:2], self.size, self.size, generator=generator)

    def limit(self, pattern: Tensor) -> Tensor:
        return pattern.clamp(0, 1)

    def apply(self, pattern: Tensor, clean: Tensor) -> Tensor:
        mask = self._mask(clean).expand_as(clean)
        return clean.masked_scatter(mask, pattern.expand(len(clean), -1, -1, -1))

    def __str__(self) -> str:
        return self.name.replace("patch", f"patch:{self.size}", 1)

    def _check_fits(self, height: int, width: int) -> None:
        row, column = self.place or (0, 0)
        if row + self.size > height or column + self.size > width:
            raise UsageError(
                f"{self} does not fit on images of {height} x {width} pixels: choose a smaller "
                "patch or another place"
            )

    def _at(self) -> tuple[Tensor, Tensor]:
        if self._corners is None:
            raise UsageError("the patch has no place yet: call threat.placed(clean, generator)")
        return self._corners

    def _mask(self, like: Tensor) -> Tensor:
        """(B, 1, H, W) bool: the square of each image."""
        (top, left), (height, width) = self._at(), like.shape[-2:]
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        top, left = top.view(-1, 1, 1), left.view(-1, 1, 1)
        inside = (rows >= top) & (rows < top + self.size)
        inside = inside & (columns >= left) & (columns < left + self.size)
        return inside[:, None].to(like.device)


class Pixels(Threat):
    """At most ``count`` pixels of an image may change, to anything (l0); ``eps`` is the count.

    The step is along the gradient, scaled to a largest entry of ``size``; the projection keeps the
    pixels whose change, clipped to the pixel range, brings the image nearest (PGD₀ of Croce and
    Hein, "Sparse and Imperceivable Adversarial Attacks", ICCV 2019).

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    name = "pixels"

    def __init__(self, count: int) -> None:
        self.eps = float(check_count(count, "the count of pixels"))
        self.count = count

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        places = torch.rand(len(clean), 1, *clean.shape[-2:], generator=generator)
        chosen = self._largest(places.flatten(1)).view_as(places).to(clean.device)
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        return torch.where(chosen, noise, clean)

    def ascend(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        largest = per_image(gradient.abs().flatten(1).amax(1), gradient)
        return images + size * gradient / torch.where(largest > 0, largest, 1.0)

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        clipped = torch.clamp(change, lower, upper)
        gain = (change.square() - (change - clipped).square()).sum(1)
        kept = self._largest(gain.flatten(1)).view_as(gain)[:, None]
        return torch.where(kept, clipped, torch.zeros_like(clipped))

    def contains(self, images: Tensor, clean: Tensor) -> Tensor:
        changed = ((images - clean).abs() > SLACK).any(1)
        return changed.flatten(1).sum(1) <= self.count

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
