"""The two trivial threats: the whole range, and nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.threats.arrays import ArrayThreat
from effattack.threats.base import Threat


class Box(ArrayThreat):
    """The range of the domain alone: any input in it, near the clean one or not."""

    name = "box"

    def __init__(self) -> None:
        self.eps = 1.0

    @classmethod
    def read(cls, size: str) -> Self:
        _refuse_size(cls.name, size)
        return cls()

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        return self.anything(clean.shape, generator, clean).to(clean.device)

    def ascend(self, inputs: Tensor, gradient: Tensor, size: float) -> Tensor:
        return inputs + size * self.span * gradient.sign()

    def nearest(self, change: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        return torch.clamp(change, lower, upper)

    def project(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return inputs.clamp(self.domain.low, self.domain.high)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)

    def __str__(self) -> str:
        return self.name


class Nothing(Threat):
    """The clean inputs alone, of any domain."""

    kind: ClassVar[str] = "any"
    name = "none"

    def __init__(self) -> None:
        self.eps = 0.0

    @classmethod
    def read(cls, size: str) -> Self:
        _refuse_size(cls.name, size)
        return cls()

    def start(self, clean: Batch, generator: Generator) -> Batch:
        return clean.clone()

    def on_grid(self, inputs: Batch, clean: Batch) -> Batch:
        return clean.clone()

    def euclidean(self, clean: Batch) -> float:
        return 0.0

    def members(self, clean: Batch) -> int:
        return 1

    def every(self, clean: Batch, at_once: int) -> Iterator[Batch]:
        yield clean

    def contains(self, inputs: Batch, clean: Batch) -> Tensor:
        found, expected = self.domain.pack(inputs), self.domain.pack(clean)
        return torch.tensor([one == other for one, other in zip(found, expected, strict=True)])

    def __str__(self) -> str:
        return self.name


def _refuse_size(name: str, size: str) -> None:
    if size:
        raise UsageError(f"{name}:{size}: {name} has no size, write it without")
