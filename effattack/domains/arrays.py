"""What images and series share: arrays of floats in a range, on the grid of a device."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from effattack.domains.base import Domain, check_tensor
from effattack.errors import UsageError


class Arrays(Domain):
    """Smooth arrays (B, channels, ...): floats in [low, high], on a grid of ``step`` if any."""

    smooth = True
    low: float
    high: float
    step: float | None
    """Between two values that a device can tell apart; None: whatever a float32 holds."""
    deviation: float | None = None
    """Of the training data: the unit ``sd`` of budgets; None where none is declared."""

    _stored: ClassVar[torch.dtype]
    _coarse: ClassVar[str]
    _resize: ClassVar[str]
    _others: ClassVar[Mapping[int, str]]
    """Dimensions of what is no batch of these -> what to do with it."""
    _rescale: ClassVar[str]

    def check(self, inputs: Tensor) -> None:
        check_tensor(self.nouns, inputs)
        nouns, dtype = self.nouns, inputs.dtype
        if not inputs.is_floating_point():
            raise UsageError(f"{nouns} have dtype {dtype}, not float: {self._as_floats(dtype)}")
        if dtype.itemsize < 2:
            raise UsageError(f"{nouns} have dtype {dtype}, too coarse{self._coarse}: give float32")
        if inputs.dim() and not len(inputs):
            raise UsageError(f"there are no {nouns}: the batch is empty")
        if not self.fits(inputs):
            remedy = self._others.get(inputs.dim(), self._resize)
            sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
            raise UsageError(
                f"{nouns} have shape {tuple(inputs.shape)}, the victim takes (B, {sizes}): {remedy}"
            )
        if not torch.isfinite(inputs).all():
            raise UsageError(f"{nouns} contain NaN or infinity: drop or repair those {nouns}")
        if (inputs < self.low).any() or (inputs > self.high).any():
            lowest, highest = inputs.min().item(), inputs.max().item()
            raise UsageError(
                f"{nouns} lie in [{lowest:.3g}, {highest:.3g}], not in "
                f"[{self.low:g}, {self.high:g}]: {self._rescale}"
            )

    def describe(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in ("low", "high", "step", "deviation")}
        return {**super().describe(), **values}

    def place(
        self, inputs: Tensor, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> Tensor:
        return inputs.detach().to(dtype or torch.float32).to(device)

    def example(self, count: int) -> Tensor:
        """The middle of the range; a free size is 32."""
        sizes = [32 if size is None else size for size in self.shape]
        return self.snap(torch.full((count, *sizes), (self.low + self.high) / 2))

    @abstractmethod
    def levels(self, inputs: Tensor) -> Tensor:
        """What tells inputs apart, in the type that it is stored in."""

    @abstractmethod
    def values(self, levels: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`levels`."""

    def pack(self, inputs: Tensor) -> list[bytes]:
        """The levels of each input; before them its free sizes, as 32-bit integers."""
        levels = self.levels(inputs.detach().cpu()).contiguous()
        free = [n for n, size in zip(inputs.shape[1:], self.shape, strict=True) if size is None]
        return [struct.pack(f"<{len(free)}i", *free) + row.numpy().tobytes() for row in levels]

    def unpack(self, rows: Sequence[bytes], like: Tensor) -> Tensor:
        if not rows:
            return like[:0]
        count = self.shape.count(None)
        free = list(struct.unpack(f"<{count}i", rows[0][: 4 * count]))
        sizes = [free.pop(0) if size is None else size for size in self.shape]
        stored = bytearray(b"".join(row[4 * count :] for row in rows))
        levels = torch.frombuffer(stored, dtype=self._stored).view(len(rows), *sizes)
        return self.values(levels, like).to(like)

    def distances(self, inputs: Tensor, clean: Tensor) -> dict[str, Tensor]:
        change = (inputs - clean).flatten(1)
        changed = (change.abs() > (self.step or 0) / 2).view(*inputs.shape[:2], -1)
        found = {
            "linf": change.abs().amax(1),
            "l2": change.norm(dim=1),
            "l1": change.abs().sum(1),
            "pixels": changed.any(1).sum(1),
        }
        return {name: column.cpu().double() for name, column in found.items()}

    def disturbed(self, inputs: Tensor, generator: Generator) -> Tensor:
        noise = torch.rand(inputs.shape, generator=generator) * (self.high - self.low) + self.low
        return self.snap((inputs + noise.to(inputs)) / 2)

    @abstractmethod
    def _as_floats(self, dtype: torch.dtype) -> str:
        """How numbers of another type become what is expected."""
