"""Series: one or more channels of samples over time, in the range and steps of a sensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effattack.domains.arrays import Arrays
from effattack.errors import UsageError


class Series(Arrays):
    """Series (B, channels, length), floats in [low, high].

    Args:
        channels: how many numbers are measured at each time.
        length: how many times; None where it is free. The series of one batch have one length.
        low: the smallest value that a victim is fed.
        high: the largest.
        step: the resolution of the device: values lie on low + k · step. None: any float32.
        deviation: standard deviation of the training data, the unit of budgets such as
            ``linf:.1sd``; None: budgets are absolute.

    Raises:
        UsageError: for a size, range, step or deviation that is none; for steps finer than float32
            tells apart in this range.
    """

    kind, noun, nouns = "series", "series", "series"
    _coarse = ""
    _resize = "cut, pad or resample them first, in the order (batch, channels, length)"
    _others = {
        2: "series of one channel are series[:, None], one series is series[None]",
        4: "images (B, C, H, W) are no series and need a victim of images",
    }
    _rescale = "scale them as the training data, or declare the range that the victim takes"

    def __init__(
        self,
        channels: int,
        length: int | None,
        low: float,
        high: float,
        step: float | None = None,
        deviation: float | None = None,
    ) -> None:
        for name, size in {"channels": channels, "length": 1 if length is None else length}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"Series: {name} = {size!r}: give a whole number of at least 1")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"Series: low = {low!r}, high = {high!r}: give finite low < high")
        for name, value in {"step": step, "deviation": deviation}.items():
            if value is not None and not 0 < value <= high - low:
                raise UsageError(
                    f"Series: {name} = {value!r}: give a positive number of at most high - low"
                )
        finest = 4 * torch.finfo(torch.float32).eps * max(abs(low), abs(high))
        if step is not None and step < finest:
            raise UsageError(
                f"Series: step = {step:g} is finer than float32 tells apart near "
                f"{max(abs(low), abs(high)):g}: give at least {finest:.3g}, or move the range to 0"
            )
        self.shape = (channels, length)
        self.low, self.high, self.step = float(low), float(high), step
        self.deviation = deviation

    @property
    def _stored(self) -> torch.dtype:
        return torch.float32 if self.step is None else torch.int32

    def snap(self, inputs: Tensor) -> Tensor:
        inside = inputs.clamp(self.low, self.high)
        if self.step is None:
            return inside
        return self.values(self.levels(inside), inputs)

    def levels(self, inputs: Tensor) -> Tensor:
        if self.step is None:
            return inputs.to(torch.float32) + 0.0  # -0.0 and 0.0 are one number
        top = math.floor((self.high - self.low) / self.step + 1e-6)
        level = ((inputs.double() - self.low) / self.step).round()
        return level.clamp(0, top).to(torch.int32)

    def values(self, levels: Tensor, like: Tensor) -> Tensor:
        if self.step is None:
            return levels.to(like.dtype)
        return (levels.double() * self.step + self.low).clamp(self.low, self.high).to(like.dtype)

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """In double precision, where the square of the smallest change is no zero."""
        return super().distances(inputs.double(), clean.double())

    def _as_floats(self, dtype: torch.dtype) -> str:
        return "convert them with .float()"
