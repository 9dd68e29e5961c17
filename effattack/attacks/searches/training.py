"""How a universal perturbation is learnt: the step rules, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from effattack.attacks.searches.memory import BETAS, Moments
from effattack.attacks.searches.projected import Schedule
from effattack.errors import UsageError
from effattack.threats import ArrayThreat

Stepper = Callable[[Tensor, Tensor, float], Tensor]
"""Perturbations (K, ...), their gradient, progress in [0, 1) -> moved perturbations."""


class StepRule(Protocol):
    """How a universal perturbation moves along its gradient."""

    def begin(self, threat: ArrayThreat) -> Stepper:
        """A stepper with a memory of its own, for one fit."""


@dataclass(frozen=True)
class Steepest:
    """The threat's own steepest step: in l-inf and patches, the sign of the gradient.

    Args:
        schedule: step size over progress, in fractions of the budget.
    """

    schedule: Schedule

    def begin(self, threat: ArrayThreat) -> Stepper:
        return lambda pattern, gradient, progress: threat.climb(
            pattern, gradient, self.schedule(progress)
        )


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015), upwards.

    Args:
        schedule: learning rate over progress, as a share of the range of the domain.
        betas: of the two moments.
    """

    schedule: Schedule
    betas: tuple[float, float] = BETAS

    def begin(self, threat: ArrayThreat) -> Stepper:
        memory: Moments | None = None

        def step(pattern: Tensor, gradient: Tensor, progress: float) -> Tensor:
            nonlocal memory
            memory = (memory or Moments.none(gradient, self.betas)).after(gradient)
            rate = self.schedule(progress) * threat.span
            return pattern + rate * memory.direction()

        return step


@dataclass(frozen=True)
class Training:
    """How a perturbation is learnt.

    Args:
        epochs: passes over the images.
        batch: images of one step.
        rule: how it moves.
    """

    epochs: int
    batch: int
    rule: StepRule

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise UsageError(
                f"epochs = {self.epochs} and batch = {self.batch} must be at least 1: a "
                "perturbation that is never trained attacks nothing"
            )
