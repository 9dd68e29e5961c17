"""A file that declares itself large: the same picture, more pixels to decode and to resize."""

from __future__ import annotations

from math import isqrt
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from effattack.domains import Domain, Pixels
from effattack.domains.pixels import enlarged
from effattack.errors import NotApplicable, UsageError
from effattack.threats.base import SLACK, Threat


class Size(Threat):
    """The same picture with a longer side of up to so many pixels, its own repeated.

    ``eps`` is that side; the proportions stay. Where the domain takes files of at most so many
    pixels, none declares more: the cap of an entry stops the threat there.

    Args:
        side: pixels.

    Raises:
        UsageError: if side is not a whole number of at least 1.
    """

    kind: ClassVar[str] = "pixels"
    name = "size"
    domain: Pixels

    def __init__(self, side: int) -> None:
        if isinstance(side, bool) or side != int(side) or side < 1:
            raise UsageError(f"size:{side}: give a whole number of pixels a side, such as 4096")
        self.eps = float(side)

    def on(self, domain: Domain) -> Self:
        bound = super().on(domain)
        if None not in domain.shape[1:]:
            raise NotApplicable(
                f"{self} declares larger files, and the victim takes {domain.nouns} of one size, "
                f"{domain.shape}: put a resize inside its door, as --through "
                "'resize(256),center_crop(224)', or Entry(victim, [...])"
            )
        return bound

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        sides = max(clean.shape[2:]), self.longest(clean)
        side = int(torch.randint(sides[0], sides[1] + 1, (1,), generator=generator))
        return self.declaring(clean, side)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        return self.declaring(clean, max(inputs.shape[2:]))

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        again = self.on_grid(inputs, clean)
        if again.shape != inputs.shape:
            return torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        return (inputs - again).abs().flatten(1).amax(1) < SLACK

    def largest(self, clean: Tensor) -> Tensor:
        """Of that size; the first picture stands for all, as only the size matters."""
        return self.declaring(clean[:1], self.longest(clean)).expand(len(clean), -1, -1, -1)

    def longest(self, clean: Tensor) -> int:
        """The most pixels that the longer side may declare."""
        height, width = clean.shape[2:]
        longer, side = max(height, width), int(self.eps)
        if self.domain.most is not None:
            side = min(side, isqrt(self.domain.most * longer**2 // (height * width)))
        return max(longer, side)

    def declaring(self, clean: Tensor, side: int) -> Tensor:
        """The same pictures, their longer side as near to ``side`` as the threat admits."""
        height, width = clean.shape[2:]
        longer = max(height, width)
        side = min(max(side, longer), self.longest(clean))
        return enlarged(clean, height * side // longer, width * side // longer)

    def __str__(self) -> str:
        return f"{self.name}:{int(self.eps)}"
