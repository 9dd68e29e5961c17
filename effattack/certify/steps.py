"""Steps: what a network does, one after the other, as far as bounds can follow it.

Every step maps maps (C, H, W) to a map; a vector is a map (C, 1, 1). It can be computed, its
rounding can be bounded, and linear functions of its outcome can be led back to functions of what
went in, which is what :mod:`effattack.certify.linear` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.certify.rows import Axis, Rows, of_whole


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        before: the numbers of the steps whose outcomes go in.
        shape: (C, H, W) of its outcome.
    """

    before: tuple[int, ...]
    shape: tuple[int, int, int]

    def __call__(self, *maps: Tensor) -> Tensor:
        """The outcome of maps (C, H, W), exactly but for the rounding of their precision."""
        raise NotImplementedError

    def largest(self, *sizes: Tensor) -> Tensor:
        """A bound of the sum of the absolute values of all terms, of bounds on what goes in."""
        raise NotImplementedError

    @property
    def terms(self) -> int:
        """How many roundings lie between what goes in and a value that comes out, at most."""
        raise NotImplementedError


class Linear(Step):
    """One that is linear but for a constant."""

    def back(self, rows: Rows) -> Rows:
        """Functions of the outcome as functions of what goes in."""
        raise NotImplementedError


class Relaxed(Step):
    """One that decides: between two maps, what it gives lies between linear functions."""

    def least(self, rows: Rows, low: Tensor, high: Tensor) -> Rows:
        """Functions of what goes in, ``low`` to ``high``, that lie below those of the outcome."""
        raise NotImplementedError


@dataclass(frozen=True)
class Given(Step):
    """The input itself."""

    def largest(self, *sizes: Tensor) -> Tensor:
        return sizes[0]


@dataclass(frozen=True)
class Convolution(Linear):
    """Cross-correlation with zero padding; average pooling is one.

    Attributes:
        weight: (C, C_in / groups, kh, kw).
        bias: (C,).
        stride, padding: of height and width.
        groups: of channels.
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    def __call__(self, *maps: Tensor) -> Tensor:
        return self._of(maps[0], self.weight, self.bias)

    def largest(self, *sizes: Tensor) -> Tensor:
        return self._of(sizes[0], self.weight.abs(), self.bias.abs())

    def _of(self, each: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(each[None], weight, bias, self.stride, self.padding, 1, self.groups)[0]

    @property
    def terms(self) -> int:
        return self.weight[0].numel() + 1

    def back(self, rows: Rows) -> Rows:
        constant = rows.constant + rows.weights.sum((-2, -1)) @ self.bias
        parts = rows.weights.unflatten(2, (self.groups, -1)).flatten(-2)
        kernels = self.weight.flatten(1).unflatten(0, (self.groups, -1)).transpose(1, 2)
        taps = (kernels @ parts).unflatten(3, (-1, *self.weight.shape[2:])).flatten(2, 3)
        taps = taps.unflatten(-1, (rows.height.size, rows.width.size))
        height, width = under(rows, self.weight.shape[2:], self.stride, self.padding)
        weights = taps.new_zeros(*taps.shape[:3], height.size, width.size)
        for y, x in product(*map(range, self.weight.shape[2:])):
            weights[_tapped(rows, self.stride, y, x)] += taps[..., y, x, :, :]
        return Rows(weights, constant, height, width)


@dataclass(frozen=True)
class Scale(Linear):
    """Each channel times a factor, plus a shift: batch norm in eval mode, normalisation.

    Attributes:
        factor, shift: (C,).
        size: (C,), the absolute values of all terms that make the shift, added up.
        roundings: on the way from a value to its outcome.
    """

    factor: Tensor
    shift: Tensor
    size: Tensor
    roundings: int

    def __call__(self, *maps: Tensor) -> Tensor:
        return maps[0] * _per_channel(self.factor) + _per_channel(self.shift)

    def largest(self, *sizes: Tensor) -> Tensor:
        return sizes[0] * _per_channel(self.factor.abs()) + _per_channel(self.size)

    @property
    def terms(self) -> int:
        return self.roundings

    def back(self, rows: Rows) -> Rows:
        constant = rows.constant + rows.weights.sum((-2, -1)) @ self.shift
        return rows._replace(weights=rows.weights * _per_channel(self.factor), constant=constant)


@dataclass(frozen=True)
class Dense(Linear):
    """A fully connected layer on a vector, or on a flattened map.

    Attributes:
        weight: (outputs, inputs).
        bias: (outputs,).
        under: (C, H, W) of what goes in.
    """

    weight: Tensor
    bias: Tensor
    under: tuple[int, int, int]

    def __call__(self, *maps: Tensor) -> Tensor:
        return (self.weight @ maps[0].flatten() + self.bias)[:, None, None]

    def largest(self, *sizes: Tensor) -> Tensor:
        return (self.weight.abs() @ sizes[0].flatten() + self.bias.abs())[:, None, None]

    @property
    def terms(self) -> int:
        return self.weight.shape[1] + 1

    def back(self, rows: Rows) -> Rows:
        functions = rows.weights.flatten(2)[0]
        below = of_whole(functions @ self.weight, self.under)
        return below._replace(constant=rows.constant + functions @ self.bias)


@dataclass(frozen=True)
class Sum(Linear):
    """Two outcomes added: a residual connection."""

    def __call__(self, *maps: Tensor) -> Tensor:
        return maps[0] + maps[1]

    def largest(self, *sizes: Tensor) -> Tensor:
        return sizes[0] + sizes[1]

    @property
    def terms(self) -> int:
        return 1

    def back(self, rows: Rows) -> Rows:
        return rows


@dataclass(frozen=True)
class Rectifier(Relaxed):
    """max(x, 0), which rounds nothing."""

    def __call__(self, *maps: Tensor) -> Tensor:
        return maps[0].clamp_min(0)

    def largest(self, *sizes: Tensor) -> Tensor:
        return sizes[0]

    def least(self, rows: Rows, low: Tensor, high: Tensor) -> Rows:
        """See :meth:`Relaxed.least`.

        Where 0 lies between l and u, max(x, 0) is at most u (x − l) / (u − l), and at least x or 0,
        whichever leaves the smaller area (Zhang et al., "Efficient Neural Network Robustness
        Certification with General Activation Functions" (CROWN), NeurIPS 2018, arXiv 1811.00866).
        """
        undecided = (low < 0) & (high > 0)
        chord = torch.where(undecided, high / (high - low).clamp_min(1e-300), (low >= 0).to(high))
        under = torch.where(undecided, (high >= -low).to(high), chord)
        lift = torch.where(undecided, -chord * low, torch.zeros_like(low))
        up, down = rows.weights.clamp_min(0), rows.weights.clamp_max(0)
        constant = rows.constant + (down * rows.over(lift)).sum((-3, -2, -1))
        weights = up * rows.over(under) + down * rows.over(chord)
        return rows._replace(weights=weights, constant=constant)


@dataclass(frozen=True)
class Largest(Relaxed):
    """Max pooling without padding, which rounds nothing.

    Attributes:
        kernel, stride: of height and width.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]

    def __call__(self, *maps: Tensor) -> Tensor:
        return F.max_pool2d(maps[0][None], self.kernel, self.stride)[0]

    def largest(self, *sizes: Tensor) -> Tensor:
        return self(*sizes)

    def least(self, rows: Rows, low: Tensor, high: Tensor) -> Rows:
        """See :meth:`Relaxed.least`.

        The outcome is at least the value whose lower bound is largest, and at most the largest
        upper bound; where no other reaches that value's lower bound, it is that value.
        """
        lows, highs = self._taken(low), self._taken(high)
        best = lows.argmax(1, keepdim=True)
        chosen = torch.zeros_like(lows).scatter(1, best, 1.0)
        rivals = torch.where(chosen > 0, -torch.inf, highs).amax(1)
        decided = (lows.amax(1) >= rivals).to(lows)
        constant_high = highs.amax(1) * (1 - decided)
        up, down = rows.weights.clamp_min(0), rows.weights.clamp_max(0)
        constant = rows.constant + (down * rows.over(constant_high)).sum((-3, -2, -1))
        kept = up + down * rows.over(decided)
        height, width = under(rows, self.kernel, self.stride, (0, 0))
        weights = kept.new_zeros(*kept.shape[:3], height.size, width.size)
        for tap, (y, x) in enumerate(product(*map(range, self.kernel))):
            weights[_tapped(rows, self.stride, y, x)] += kept * rows.over(chosen[:, tap])
        return Rows(weights, constant, height, width)

    def _taken(self, each: Tensor) -> Tensor:
        """(C, H, W) -> (C, kh · kw, outputs): what each output chooses from."""
        columns = F.unfold(each[:, None], self.kernel, stride=self.stride)
        return columns.unflatten(2, self.shape[1:])


def under(
    rows: Rows, kernel: Sequence[int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Axis, Axis]:
    """Where the windows lie that a sliding kernel sees of what goes in."""
    height, width = (
        Axis(
            axis.first * step - border,
            axis.step * step,
            (axis.size - 1) * step + length,
            axis.places,
        )
        for axis, length, step, border in zip(
            (rows.height, rows.width), kernel, stride, padding, strict=True
        )
    )
    return height, width


def _tapped(rows: Rows, stride: tuple[int, int], y: int, x: int) -> tuple[Any, ...]:
    """What one value of a sliding kernel sees, of windows that hold all of its places."""
    down, right = stride
    return (
        ...,
        slice(y, y + down * (rows.height.size - 1) + 1, down),
        slice(x, x + right * (rows.width.size - 1) + 1, right),
    )


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def needed(steps: Sequence[Step], last: int) -> list[int]:
    """The numbers of the steps that one depends on, itself included, in order."""
    wanted = {last}
    for number in range(last, -1, -1):
        if number in wanted:
            wanted |= {*steps[number].before}
    return sorted(wanted)
