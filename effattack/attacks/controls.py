"""What every attack must be compared with: nothing, noise, and a picture of nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.images import to_grid
from effattack.objectives import Goal
from effattack.threats import Linf
from effattack.victim import Victim


class Clean(Attack):
    """The clean images themselves; no seed changes them."""

    kind: ClassVar[Kind] = "control"
    name = "clean"

    def __init__(self, victim: Victim, *, seed: int = 0) -> None:
        super().__init__(victim, eps=0.0, seed=0)

    def run(self, clean: Tensor, labels: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return clean


class Noise(Attack):
    """Uniform random noise in the budget: what an attack must beat.

    Args:
        victim: any victim.
        eps: l-inf budget in [0, 1] pixels.
        seed: of the noise.
    """

    kind: ClassVar[Kind] = "control"
    name = "noise"

    def __init__(self, victim: Victim, eps: float = 8 / 255, *, seed: int = 0) -> None:
        self.threat = Linf(eps)
        super().__init__(victim, eps=eps, seed=seed)

    def run(self, clean: Tensor, labels: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.threat.on_grid(self.threat.start(clean, generator), clean)


class NearUniform(Attack):
    """A nearly uniform image, N(0.5, 2/255) per pixel, whatever the clean one was.

    Müller and Quiring, "The Impact of Uniform Inputs on Activation Sparsity and Energy-Latency
    Attacks in Computer Vision", SPW 2024 (arXiv 2403.18587): such images rival optimised sponges.
    The budget is the whole pixel box, eps = 1.
    """

    kind: ClassVar[Kind] = "control"
    name = "uniform"

    def __init__(self, victim: Victim, *, seed: int = 0) -> None:
        super().__init__(victim, eps=1.0, seed=seed)

    def run(self, clean: Tensor, labels: Tensor, goal: Goal, generator: Generator) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return to_grid((0.5 + noise * 2 / 255).clamp(0, 1))
