"""What every attack must be compared with: nothing, noise, and a picture of nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import Goal
from effattack.threats import ArrayThreat, Box, Nothing, Threat
from effattack.victim import Victim


class WithoutBudget(Attack):
    """A control that keeps to no budget of the caller's."""

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    budgeted, fixed = False, True


class Clean(WithoutBudget):
    """The clean inputs themselves; no seed changes them."""

    takes, label = "any", "clean"

    def prepare(self) -> None:
        self.seed = 0

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Nothing()

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return clean


class Noise(Attack):
    """Random noise in the budget, uniform where that makes sense: what an attack must beat.

    Args:
        victim: any victim.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        seed: of the noise.
    """

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    takes = "any"
    label = "noise"

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        return threat.on_grid(threat.start(clean, generator), clean)


class NearUniform(WithoutBudget):
    """A nearly uniform input, N(0.5, 2/255) per value of a range of 1, whatever the clean one was.

    Müller and Quiring, "The Impact of Uniform Inputs on Activation Sparsity and Energy-Latency
    Attacks in Computer Vision", SPW 2024 (arXiv 2403.18587): such images rival optimised sponges.
    The budget is the whole range, eps = 1.
    """

    label = "uniform"
    threat: ArrayThreat

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        domain = self.threat.domain
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        middle, span = (domain.low + domain.high) / 2, domain.high - domain.low
        return domain.snap((middle + span * noise * 2 / 255).clamp(domain.low, domain.high))
