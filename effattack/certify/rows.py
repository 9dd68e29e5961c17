"""Rows: linear functions of what one step of a network gives, each of a window of it.

A value of a convolution sees a few values of the step before, and nothing beyond. So the functions
of all its values together are held as one small window each, and stay small over many layers; where
a window meets the border, what lies outside of the map is zero, as padding is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Axis(NamedTuple):
    """Where the windows of all places lie along one axis of a map: place p begins at
    ``first + step * p`` and is ``size`` long."""

    first: int
    step: int
    size: int
    places: int

    def overhang(self, length: int) -> tuple[int, int]:
        """How far the outermost windows reach beyond a map of that length, before and behind."""
        last = self.first + self.step * (self.places - 1) + self.size
        return max(0, -self.first), max(0, last - length)


class Rows(NamedTuple):
    """Functions of a map (C, H, W): value = Σ weights · window + constant.

    Attributes:
        weights: (P, R, C, h, w), R functions at each of P places.
        constant: (P, R).
        height, width: where the windows lie; P is the product of their counts.
    """

    weights: Tensor
    constant: Tensor
    height: Axis
    width: Axis

    def over(self, each: Tensor) -> Tensor:
        """What a map (C, H, W) has in each window: (P, 1, C, h, w), zero outside of the map."""
        top, bottom = self.height.overhang(each.shape[1])
        left, right = self.width.overhang(each.shape[2])
        wide = F.pad(each, (left, right, top, bottom))
        for dim, (axis, border) in enumerate(((self.height, top), (self.width, left)), start=1):
            wide = wide.narrow(dim, axis.first + border, wide.shape[dim] - axis.first - border)
            wide = wide.unfold(dim, axis.size, max(1, axis.step)).narrow(dim, 0, axis.places)
        return wide.flatten(1, 2).transpose(0, 1)[:, None]

    def inside(self, shape: tuple[int, ...]) -> Rows:
        """The same functions, of nothing outside of a map (C, H, W); lone windows are cut to it."""
        rows = self
        if rows.height.places == rows.width.places == 1:
            rows = rows._cut(-2, "height", shape[1])._cut(-1, "width", shape[2])
        if any((*rows.height.overhang(shape[1]), *rows.width.overhang(shape[2]))):
            rows = rows._replace(
                weights=rows.weights * rows.over(rows.weights.new_ones(1, *shape[1:]))
            )
        return rows

    def _cut(self, dim: int, name: str, length: int) -> Rows:
        axis: Axis = getattr(self, name)
        first, last = max(0, axis.first), min(length, axis.first + axis.size)
        weights = self.weights.narrow(dim, first - axis.first, last - first)
        axes: dict[str, Any] = {name: axis._replace(first=first, size=last - first)}
        return self._replace(weights=weights, **axes)

    def plus(self, other: Rows) -> Rows:
        """The sums of functions of the same map, at the same places."""
        height, width = (
            _around(a, b) for a, b in ((self.height, other.height), (self.width, other.width))
        )
        weights = self._widened(height, width) + other._widened(height, width)
        return Rows(weights, self.constant + other.constant, height, width)

    def _widened(self, height: Axis, width: Axis) -> Tensor:
        margins = []
        for mine, whole in ((self.width, width), (self.height, height)):
            before = mine.first - whole.first
            margins += [before, whole.size - mine.size - before]
        return F.pad(self.weights, margins)


def _around(one: Axis, other: Axis) -> Axis:
    first = min(one.first, other.first)
    last = max(one.first + one.size, other.first + other.size)
    return one._replace(first=first, size=last - first)


def both_ways(shape: tuple[int, ...], like: Tensor) -> Rows:
    """Every value of a map (C, H, W), and its negative: 2 C functions at each of H · W places."""
    channels, height, width = shape
    one = torch.eye(channels, dtype=like.dtype)
    weights = torch.cat([one, -one])[None, :, :, None, None]
    places = height * width
    return Rows(
        weights.expand(places, -1, -1, -1, -1),
        like.new_zeros(places, 2 * channels),
        Axis(0, 1, 1, height),
        Axis(0, 1, 1, width),
    )


def of_whole(functions: Tensor, shape: tuple[int, ...]) -> Rows:
    """Functions (R, C · H · W) of a whole map (C, H, W), at one place."""
    return Rows(
        functions.reshape(1, len(functions), *shape),
        functions.new_zeros(1, len(functions)),
        Axis(0, 1, shape[1], 1),
        Axis(0, 1, shape[2], 1),
    )
