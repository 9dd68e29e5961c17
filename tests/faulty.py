"""Victims and data for sweeps by name, and what can go wrong with cells."""

from __future__ import annotations

import resource
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack.budgets import LEVELS
from effattack.runs.sweep import Sweep
from effattack.victim import Trace

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="pip install '.[ray]'")
"""Looks without importing: Ray reads its settings when it is imported, and effattack makes them."""
RAISES, HANGS, HUNGRY = 200, 201, 202
"""Levels of the first pixel at which the deployed path of :class:`Faulty` fails."""


class Faulty(LinearSaver):
    """Raises, hangs or eats all memory on certain images."""

    def forward(self, images: Tensor) -> Tensor:
        level = round(images[0, 0, 0, 0].item() * LEVELS)
        if level == RAISES:
            raise ArithmeticError("no answer to this image")
        if level == HANGS:
            time.sleep(3600)
        if level == HUNGRY:
            self.eat()
        return super().forward(images)

    def eat(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
        try:
            eaten = []
            while True:
                eaten.append(np.ones(2**23))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


class WrongSign(LinearSaver):
    """Its margin tells the opposite of its decision."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "wrong"

    def trace(self, images: Tensor) -> Trace:
        trace = super().trace(images)
        (gate,) = trace.gates
        return trace._replace(gates=(gate._replace(margin=-gate.margin),))


class Undeclared(WrongSign):
    """Says nonsense of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.max_macs = -1.0


def data() -> tuple[Tensor, Tensor]:
    """60 images."""
    return grey_images(60), torch.arange(60) % 2


def bad_data() -> tuple[Tensor, Tensor]:
    """Four images, on three of which :class:`Faulty` fails."""
    images = grey_images(4)
    images[1:, 0, 0, 0] = torch.tensor([RAISES, HANGS, HUNGRY]) / LEVELS
    return images, torch.arange(4) % 2


def raising_data() -> tuple[Tensor, Tensor]:
    """Two of them: :class:`Faulty` raises on the second."""
    images, labels = bad_data()
    return images[:2], labels[:2]


TOY = Sweep(
    victims=("toys:LinearSaver",),
    attacks=("Slowdown",),
    data="faulty:data",
    slice=5,
    timed=0,
)
"""49 short cells: 12 slices under four attacks, and the contract."""
BAD = Sweep(
    victims=("faulty:Faulty",),
    attacks=("noise",),
    seeds=(1,),
    data="faulty:bad_data",
    slice=1,
    timed=0,
)
"""13 cells, of which the clean ones of three slices fail."""
